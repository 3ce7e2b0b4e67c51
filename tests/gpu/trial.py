"""What the checks have in common: where they run, on which images, and how a table is laid out."""

import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from err_seg.config import Config, get_cfg, shipped_configs
from err_seg.engine.run_setup import git_state
from err_seg.mini.files import mini_world_name

ROOT = Path(__file__).resolve().parents[2]
MINI = shipped_configs() / "mini/err_seg.yaml"


@dataclass(frozen=True)
class Trial:
    """Where the checks run.

    Attributes:
        device: a CUDA device, or the CPU for a rehearsal.
        folder: for data and runs.
    """

    device: torch.device
    folder: Path

    @property
    def rehearsal(self) -> bool:
        """Whether this is a rehearsal on the CPU."""
        return self.device.type != "cuda"

    def cfg(self, name: str, *overrides: Any) -> Config:
        """Return the miniature world's configuration with overrides, to run in a folder of its own."""
        train, test = (64, 16) if not self.rehearsal else (8, 2)
        common = [
            *("OUTPUT_DIR", str(self.folder / name), "MODEL.DEVICE", str(self.device), "LOG.TENSORBOARD", False),
            *("DATASETS.ROOT", str(self.folder / "data")),
            *("DATASETS.TRAIN", [mini_world_name("train", train)], "DATASETS.TEST", [mini_world_name("test", test)]),
        ]
        small = ["INPUT.SIZE", 64, "INPUT.CROP_SIZE", 64, "INPUT.MIN_SIZE_TRAIN", [64], "SOLVER.IMS_PER_BATCH", 2]
        return get_cfg(MINI, [*common, *(small if self.rehearsal else ()), *overrides])

    def command(self, cfg: Config, *arguments: str) -> list[str]:
        """Return the command line that trains with a configuration, which is written beside its output folder."""
        file = Path(f"{cfg.OUTPUT_DIR}.yaml")
        file.write_text(cfg.dump(), encoding="utf-8")
        return [sys.executable, "-m", "err_seg", "train", "--config-file", str(file), "--engine", "plain", *arguments]

    def environment(self) -> dict[str, str]:
        """Return the environment for commands, in which this package is found."""
        path = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
        return {**os.environ, "PYTHONPATH": os.pathsep.join(path)}

    def facts(self) -> dict[str, str]:
        """Return what the page must say of the machine and the code."""
        facts = {"card": "none: a rehearsal on the CPU"}
        if not self.rehearsal:
            card = torch.cuda.get_device_properties(self.device)
            facts = {
                "card": f"{torch.cuda.device_count()} × {card.name}",
                "compute capability": f"{card.major}.{card.minor}",
                "memory": f"{card.total_memory / 2**30:.0f} GiB",
                "CUDA": str(torch.version.cuda),
            }
        state = git_state(ROOT)
        changed = " and changes" if state and state["changed"] else ""
        code = f"{state['commit'][:12]}{changed}" if state else "not a git repository"
        return {**facts, "torch": torch.__version__, "Python": platform.python_version(), "code": code}


def table(headings: Sequence[str], rows: Sequence[Sequence[Any]]) -> list[str]:
    """Lay out a table in Markdown."""
    return [f"| {' | '.join(map(str, row))} |" for row in (headings, ["---"] * len(headings), *rows)]
