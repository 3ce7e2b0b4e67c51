"""Files are complete or absent, and what killed processes leave is removed, but nothing that is being written."""

import fcntl
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from err_seg.utils import files
from err_seg.utils.files import atomic_write, remove_partial_files

WRITER = """
import sys, time
from err_seg.utils.files import atomic_write
with atomic_write(sys.argv[1]) as partial:
    partial.write_text("half a file")
    print("writing", flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def start_writer():
    """Return a function that starts a process in the middle of writing a file; a line to it lets it end."""
    processes = []

    def start(path):
        command = [sys.executable, "-c", WRITER, str(path)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        processes.append(process)
        assert process.stdout.readline() == "writing\n"
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_next_run_removes_what_killed_ones_left(tmp_path, start_writer):
    for writer in [start_writer(tmp_path / f"{number}.json") for number in range(3)]:
        writer.kill()
        writer.wait()
    assert len(names(tmp_path)) == 3
    with atomic_write(tmp_path / "other.json") as partial:
        partial.write_text("whole")
    assert names(tmp_path) == ["other.json"]


def test_nothing_is_removed_that_somebody_writes(tmp_path, start_writer):
    killed, alive = start_writer(tmp_path / "a.json"), start_writer(tmp_path / "b.json")
    killed.kill()
    killed.wait()
    assert not remove_partial_files(tmp_path)
    assert len(names(tmp_path)) == 2  # whose is whose cannot be told while somebody writes
    for name in ("c.json", "d.json"):
        with atomic_write(tmp_path / name) as partial:
            partial.write_text("whole")
    alive.communicate("go on\n")
    assert alive.returncode == 0
    assert (tmp_path / "b.json").read_text() == "half a file"
    with atomic_write(tmp_path / "e.json") as partial:  # the folder is looked through until that succeeds
        partial.write_text("whole")
    assert names(tmp_path) == ["b.json", "c.json", "d.json", "e.json"]


def test_many_writers_and_sweepers_at_once(tmp_path):
    def write(number):
        with atomic_write(tmp_path / f"{number % 7}.txt") as partial:
            partial.write_text(str(number % 7) * 1000)
            time.sleep(0.001)
        remove_partial_files(tmp_path)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(300)))
    assert names(tmp_path) == [f"{number}.txt" for number in range(7)]
    assert all(path.read_text() == path.stem * 1000 for path in tmp_path.iterdir())


def test_without_locks_only_what_is_long_untouched_is_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "try_lock", lambda descriptor, shared=False: None)
    for name, age in ((".old.partial", 25 * 3600), (".new.partial", 60)):
        (tmp_path / name).write_text("half a file")
        os.utime(tmp_path / name, (time.time() - age,) * 2)
    with atomic_write(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    assert names(tmp_path) == [".new.partial", "a.txt"]


def test_a_folder_that_another_program_locks_is_written_to_all_the_same(tmp_path):
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    (tmp_path / ".x.partial").write_text("whose?")
    with atomic_write(tmp_path / "a.txt") as partial:
        partial.write_text("whole")
    assert names(tmp_path) == [".x.partial", "a.txt"]
    os.close(descriptor)


def test_the_longest_name_can_be_written(tmp_path):
    with atomic_write(tmp_path / ("n" * 251 + ".txt")) as partial:
        partial.write_text("whole")
    assert [len(name) for name in names(tmp_path)] == [255]


def test_errors_name_the_file_that_was_asked_for(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"/a\.txt'$"), atomic_write(tmp_path / "a.txt"):
        pass  # nothing is written
    (tmp_path / "b.txt").mkdir()
    with pytest.raises(IsADirectoryError, match=r"/b\.txt'$"), atomic_write(tmp_path / "b.txt") as partial:
        partial.touch()
