"""What a run depends on besides its configuration: versions, seed, machine and the state of the code."""

import platform
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from err_seg.config import Config
from err_seg.utils.device import resolve_precision
from err_seg.version import __version__

PACKAGES = ("torch", "torchvision", "open_clip_torch", "timm", "accelerate", "numpy", "pillow", "safetensors")


def environment(cfg: Config, device: torch.device, processes: int) -> dict[str, Any]:
    """Return the facts for ``environment.json``; the state of the code is ``None`` outside a git repository."""
    is_cuda = device.type == "cuda"
    precision = resolve_precision(cfg.SOLVER.PRECISION, device)
    return {
        "err_seg": __version__,
        "git": git_state(Path(__file__).parent),
        "command": sys.argv,
        "seed": cfg.SEED,
        "processes": processes,
        "device": torch.cuda.get_device_name(device) if is_cuda else str(device),
        "precision": precision.name,
        "precision_reason": precision.reason,
        "tf32": cfg.SOLVER.TF32,
        "deterministic": cfg.SOLVER.DETERMINISTIC,
        "cuda": torch.version.cuda if is_cuda else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version_of(name) for name in PACKAGES},
    }


def git_state(folder: Path) -> dict[str, Any] | None:
    """Return a folder's commit and the files that differ from it, or ``None`` without git or a repository."""
    try:
        commit = _git(folder, "rev-parse", "HEAD").strip()
        return {"commit": commit, "changed": _git(folder, "status", "--porcelain").splitlines()}
    except (OSError, subprocess.SubprocessError):
        return None


def _git(folder: Path, *arguments: str) -> str:
    command = ["git", "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout


def version_of(package: str) -> str | None:
    """Return the version of an installed package, or ``None``."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
