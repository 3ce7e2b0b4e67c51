"""A table says when other processes had part of the machine while it was made."""

import subprocess
import sys
import time
from dataclasses import replace

import pytest

from err_seg.lab.benchmarks.cases import Case
from err_seg.lab.benchmarks.measurement import Measurement, OtherLoad
from err_seg.lab.benchmarks.report import group_table

CASE = Case("prediction", "toy", 3, 2, 64, 1, (64, 64))


def test_another_process_is_seen_and_ones_own_work_is_not(monkeypatch):
    class Times(tuple):
        def _asdict(self):
            return {"user": self[0], "idle": self[1], "guest": 0.0}

    seen = iter([(Times((10.0, 90.0)), (4.0, 0.0, 0.0, 0.0)), (Times((14.0, 92.0)), (6.5, 0.5, 0.0, 0.0))])
    current = next(seen)
    monkeypatch.setattr("psutil.cpu_times", lambda: current[0])
    monkeypatch.setattr("psutil.Process", lambda: type("P", (), {"cpu_times": staticmethod(lambda: current[1])}))
    load = OtherLoad()
    current = next(seen)
    assert load.share() == pytest.approx(1 / 6), "4 s busy, 3 of them for this process, of 6"


def test_a_busy_neighbour_counts():
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as neighbour:
        try:
            load = OtherLoad()
            time.sleep(0.5)
            assert load.share() > 0
        finally:
            neighbour.kill()


@pytest.mark.parametrize(("share", "is_marked"), [(0.3, True), (0.01, False), (None, False)])
def test_a_disturbed_table_says_so(share, is_marked):
    row = replace(Measurement(CASE, 2.0, [1.0], [1.0]), other_load=share)
    assert ("Disturbed: other processes used 30% of the processors" in group_table([row])) == is_marked
