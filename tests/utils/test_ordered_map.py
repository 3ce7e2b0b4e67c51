"""The ordered map over threads: order, bounds, errors and interruptions."""

import threading
import time

import pytest

from err_seg.utils.ordered_map import TimeShare, ordered_map


@pytest.mark.parametrize("threads", [1, 3])
def test_results_come_in_order_and_no_more_items_are_asked_for_than_allowed(threads):
    asked, given = [], []

    def items():
        for i in range(20):
            asked.append(i)
            assert len(asked) - len(given) <= 5
            yield i

    def slow_if_even(i):
        time.sleep(0.004 * (i % 2 == 0))
        return i * i

    for result in ordered_map(slow_if_even, items(), threads=threads, ahead=4):
        given.append(result)
    assert given == [i * i for i in range(20)]


def test_calls_go_on_while_the_next_item_is_made():
    called = threading.Event()

    def items():
        yield 0
        assert called.wait(5), "the call for the first item must not wait for the second"
        yield 1

    assert list(ordered_map(lambda i: called.set(), items(), threads=1, ahead=1)) == [None, None]


def test_an_error_of_the_items_comes_after_the_results_before_it():
    def items():
        yield from (0, 1)
        raise OSError("no more")

    results = ordered_map(lambda i: i, items(), threads=2, ahead=8)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(OSError, match="no more"):
        next(results)


def test_no_call_begins_after_one_that_failed():
    called, made = [], threading.Event()

    def items():
        yield from range(3)
        made.set()
        yield 3

    def call(i):
        called.append(i)
        if i == 1:
            made.wait(5)
            raise ValueError("the second")
        return i

    results = ordered_map(call, items(), threads=1, ahead=6)
    assert next(results) == 0
    with pytest.raises(ValueError, match="the second"):
        next(results)
    assert called == [0, 1]


@pytest.mark.parametrize("way", ["interrupted", "closed"])
def test_the_end_waits_for_calls_that_run_and_begins_no_other(way):
    began, done = [], []

    def items():
        yield from range(6)
        if way == "interrupted":
            raise KeyboardInterrupt

    def call(i):
        began.append(i)
        time.sleep(0.05)
        done.append(i)

    results = ordered_map(call, items(), threads=1, ahead=6 if way == "interrupted" else 5)
    if way == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            next(results)
    else:
        next(results)
        results.close()
    count = len(done)
    time.sleep(0.1)
    assert began == done
    assert len(done) == count < 6


def test_shares_of_time_add_up():
    share, other = TimeShare(), TimeShare(work=3.0, whole=4.0)
    with share.timing("whole"):
        with share.timing("work"):
            time.sleep(0.02)
        time.sleep(0.02)
    assert 0.02 <= share.work < share.whole
    share.add(other)
    assert str(share).startswith("7")
    assert str(TimeShare()) == "none"
