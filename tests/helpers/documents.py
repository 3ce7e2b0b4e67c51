"""What a document of the project says, and checks that the project keeps its word.

Names, keys and files of other projects stand in columns of tables whose heading begins with "theirs"; all else is ours.
"""

import functools
import os
import re
import shlex
import subprocess
import sys

import yaml

import err_seg
from err_seg.commands import COMMANDS
from err_seg.config import Config
from err_seg.data import get_dataset
from tests.helpers.toy import REPOSITORY

KEY = r"[A-Z][A-Z0-9_]*(?:\.[A-Z0-9_]+)+"
SINGLE_KEYS = ("OUTPUT_DIR", "SEED", "VIS_PERIOD")
OTHER_PROGRAMS = (
    "pip",
    "cp",
    "hf",
    "source",
    "export",
    "cd",
    "mkdir",
    "unzip",
    "tar",
    "cat",
    "ruff",
    "mypy",
    "lint-imports",
)


def blocks(text, language):
    """List the fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def table_rows(text):
    """Yield (headings, cells) of each row of each table; outside of tables, (None, [line])."""
    headings = None
    for line in text.splitlines():
        if not line.startswith("|"):
            headings = None
            yield None, [line]
            continue
        cells = [cell.strip() for cell in line.strip().strip("|").split("|")]
        if headings is None:
            headings = cells
        elif not set("".join(cells)) <= set("-: "):
            yield headings, cells


def ours(text):
    """Return the text without the columns of other projects."""
    kept = []
    for headings, cells in table_rows(text):
        pairs = zip(headings or [""], cells, strict=True)
        kept.append(" ; ".join(cell for heading, cell in pairs if not heading.startswith("theirs")))
    return "\n".join(kept)


def code_spans(text):
    """List what stands in single backticks, fenced blocks aside."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))


def commands(text):
    """List the command lines: those of ``bash`` blocks, and code spans that call Python, bash or err-seg."""
    lines = [line for block in blocks(text, "bash") for line in block.replace("\\\n", " ").splitlines()]
    lines += [span for span in code_spans(ours(text)) if re.match(r"(python|bash) \S+\.(py|sh)\b|err-seg \w", span)]
    parts = [part for line in lines for part in re.split(r" \| | && ", line.split(" #")[0])]
    return [part.strip() for part in parts if part.strip() and not part.startswith("#")]


OF_READERS = ("streets/", "prepared/")
"""Folders of the reader's own, whose configurations other tests write and run."""
WITH_OWN_OPTIONS = (
    ["mini", "draw"],
    ["prepare", "from"],
)


@functools.cache
def help_of(*program):
    """Return what a program of the project says to ``--help``: a script, or ``-m err_seg`` and the command's name."""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, *program, "--help"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout


def check_command(command):
    """Check that a command's program exists, and has the options and the configuration that the command names."""
    words = shlex.split(command)
    if "err_seg" in words and words[words.index("err_seg") - 1] == "-m":  # by python or a launcher
        words = ["err-seg", *words[words.index("err_seg") + 1 :]]
    place = next((i for i, word in enumerate(words) if word.endswith((".py", ".sh"))), None)
    if words[0] == "err-seg":
        assert words[1] in [*COMMANDS, "--help"], command
        length = 3 if words[1:3] in WITH_OWN_OPTIONS else 2
        program, arguments = ("-m", "err_seg", *words[1:length]), words[length:]
    elif words[:2] == ["python", "-m"] and words[2].startswith("tools."):
        assert (REPOSITORY / words[2].replace(".", "/")).with_suffix(".py").is_file(), command
        program, arguments = ("-m", words[2]), words[3:]
    elif place is None:
        is_assignment = re.fullmatch(r"[A-Z_]+=.*", words[0]) is not None
        assert is_assignment or words[0] in OTHER_PROGRAMS or words[:3] == ["python", "-m", "pytest"], command
        return
    else:
        script, arguments = REPOSITORY / words[place], words[place + 1 :]
        program = (str(script),)
        assert script.is_file(), command
    if program[0].endswith(".sh"):
        subprocess.run(["bash", "-n", *program], check=True)
        config = arguments[0] if arguments and arguments[0].endswith(".yaml") else None
    else:
        options = {word.split("=")[0] for word in arguments if word.startswith("--")}
        missing = options and options - set(re.findall(r"--[\w-]+", help_of(*program)))
        assert not missing, f"{' '.join(program)} has no option {missing}"
        config = arguments[arguments.index("--config-file") + 1] if "--config-file" in arguments else None
    if config is not None and not config.isupper() and not config.startswith(OF_READERS):  # FILE stands for any
        keys = [i for i, word in enumerate(arguments) if re.fullmatch(KEY, word) or word in SINGLE_KEYS]
        err_seg.get_cfg(
            REPOSITORY / config if config.endswith(".yaml") else config,
            [word for i in keys for word in arguments[i : i + 2]],
        )


def check_keys(text):
    """Check that each configuration key exists, and has the default that follows it as in ``KEY: value``."""
    for span in code_spans(ours(text)):
        found = re.match(rf"({KEY}|{'|'.join(SINGLE_KEYS)})(\.\*)?(?:: (.*))?(?= |$)", span)
        if not found:
            continue
        key, _, value = found.groups()
        node = Config()
        for name in key.split("."):
            assert hasattr(node, name), f"there is no key {key}"
            node = getattr(node, name)
        assert value is None or yaml.safe_load(value) == node, f"{key} is {node!r} by default, not {value}"


def check_links(text, folder):
    """Check that relative links lead somewhere."""
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        assert "://" in target or (folder / target).exists(), f"the link to {target} leads nowhere"


def check_files(text):
    """Check that files and folders of the project that are named exist."""
    for name in re.findall(r"`((?:configs|err_seg|tools|scripts|tests|examples|docs)/[\w/.-]+)`", ours(text)):
        assert (REPOSITORY / name).exists(), f"there is no {name}"


def check_data_sets(text):
    """Check that data sets that are named, by ours or other projects' names, are known."""
    for name in re.findall(r"`['\[]*(\w+_(?:train|val|val_all|sem_seg))\b", text):
        get_dataset(name)
