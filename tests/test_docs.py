"""What README and docs say is so: keys and their defaults, files, links, commands with their options, data sets."""

import re

import pytest

from err_seg.config import ConfigError
from err_seg.data import DatasetError
from err_seg.data.catalog import published
from tests.helpers.documents import (
    blocks,
    check_command,
    check_data_sets,
    check_files,
    check_keys,
    check_links,
    code_spans,
    commands,
    table_rows,
)
from tests.helpers.toy import REPOSITORY

DOCUMENTS = [REPOSITORY / "README.md", REPOSITORY / "CONTRIBUTING.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
MIGRATION = (REPOSITORY / "docs/migration.md").read_text(encoding="utf-8")
TABLES = [(headings, cells) for headings, cells in table_rows(MIGRATION) if headings]

document = pytest.mark.parametrize("file", DOCUMENTS, ids=lambda file: file.name)


@document
def test_keys_and_defaults(file):
    check_keys(file.read_text(encoding="utf-8"))


@document
def test_links_and_files(file):
    text = file.read_text(encoding="utf-8")
    check_links(text, file.parent)
    check_files(text)


@document
def test_data_sets(file):
    check_data_sets(file.read_text(encoding="utf-8"))


@document
def test_python_is_python(file):
    for script in blocks(file.read_text(encoding="utf-8"), "python"):
        compile(script, file.name, "exec")


ALL_COMMANDS = sorted({command for file in DOCUMENTS for command in commands(file.read_text(encoding="utf-8"))})


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_commands(command):
    check_command(command)


def test_migration_names_each_data_set_with_its_old_name_and_folder():
    rows = [code_spans(" ".join(cells)) for headings, cells in TABLES if "prepared folder" in headings]
    listed = [(theirs, name, folder) for theirs, _, name, folder in rows]
    assert sorted(listed) == sorted(
        (spec.aliases[0], spec.name, spec.label_dir) for spec in published() if spec.aliases
    )


def test_migration_leaves_no_key_without_an_answer():
    rows = [cells for headings, cells in TABLES if headings[:2] == ["theirs", "ours"]]
    assert len(rows) > 60
    for theirs, answer, *_ in rows:
        assert theirs
        assert re.match(r"not needed: \w|.*`", answer) or "not load" in answer, theirs


TABLE = "| theirs | ours |\n|---|---|\n| `OLD.KEY`, `configs/old.yaml` | `{}` |\n"


@pytest.mark.parametrize(
    ("check", "text", "error"),
    [
        (check_keys, TABLE.format("SOLVER.MAX_ITR"), AssertionError),
        (check_keys, TABLE.format("SOLVER.MAX_ITER: 8"), AssertionError),
        (check_keys, "`OLD.KEY 3` elsewhere", AssertionError),
        (check_files, TABLE.format("configs/new.yaml"), AssertionError),
        (lambda text: check_links(text, REPOSITORY / "docs"), "[it](README.md#first)", AssertionError),
        (check_data_sets, "`ade20k_151_val`", DatasetError),
        (check_command, "python tools/trian_net.py", AssertionError),
        (check_command, "python tools/train_net.py --resum", AssertionError),
        (check_command, "err-seg predikt photo.jpg", AssertionError),
        (check_command, "err-seg predict photo.jpg --clases cat", AssertionError),
        (check_command, "torchrun --nproc-per-node 8 -m err_seg predict photos --clases cat", AssertionError),
        (check_command, "python tools/train_net.py --config-file configs/base.yaml SOLVER.MAX_ITR 1", ConfigError),
        (check_command, "bash scripts/train.sh configs/base.yaml 4 SOLVER.MAX_ITR 1", ConfigError),
        (check_command, "python -m tools.studies.wrods", AssertionError),
        (check_command, "python -m tools.studies.words --netwroks mini", AssertionError),
        (check_command, "rm photo.jpg", AssertionError),
    ],
)
def test_mistakes_are_found(check, text, error):
    with pytest.raises(error):
        check(text)


def test_what_is_right_passes():
    check_keys(TABLE.format("SOLVER.MAX_ITER: 80000") + '`TEST.AUG.*`, `SEED: 0`, `DATASETS.TEST "[]"`')
    check_files(TABLE.format("configs/base.yaml"))
    assert commands("| theirs | ours |\n|---|---|\n| `bash run.sh` | `bash scripts/test.sh` or so |\n") == [
        "bash scripts/test.sh"
    ]
