"""A table says when other processes had part of the machine while it was made."""

import subprocess
import sys
import time
from collections import namedtuple
from types import SimpleNamespace

import pytest

from err_seg.lab.benchmarks.cases import Case
from err_seg.lab.benchmarks.measurement import Measurement, processor_seconds
from err_seg.lab.benchmarks.report import group_table

CASE = Case("prediction", "toy", 3, 2, 64, 1, (64, 64))


def test_ones_own_work_is_not_counted(monkeypatch):
    times = namedtuple("Times", ("user", "idle", "guest"))(14.0, 92.0, 2.0)
    monkeypatch.setattr("psutil.cpu_times", lambda: times)
    monkeypatch.setattr("psutil.Process", lambda: SimpleNamespace(cpu_times=lambda: (6.5, 0.5, 1.0, 0.0, 9.0)))
    assert processor_seconds() == (106.0, 6.0)


def test_a_busy_neighbour_counts():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            whole, others = processor_seconds()
            time.sleep(0.5)
            assert processor_seconds()[1] > others
            assert processor_seconds()[0] > whole
        finally:
            neighbour.kill()


@pytest.mark.parametrize(("share", "is_marked"), [(0.3, True), (0.01, False)])
def test_a_disturbed_table_says_so(share, is_marked):
    row = Measurement(CASE, 2.0, [1.0], [1.0], share)
    assert ("Disturbed: other processes had 30% of the processors" in group_table([row])) == is_marked
