"""The list of checks, and the page that is made of them."""

import time
import traceback
from collections.abc import Callable, Iterator, Sequence

from err_seg.gpu_checks import computing, processes
from err_seg.gpu_checks.trial import Finding, Trial, table

CHECKS: dict[str, Callable[[Trial], Finding]] = {
    "compare": computing.compare_devices,
    "benchmark": computing.benchmark_prediction,
    "precisions": computing.train_at_each_precision,
    "waiting": computing.find_waiting,
    "profile": computing.profile_training,
    "interrupt": processes.interrupt_and_repeat,
    "killed": processes.kill_one_of_two,
    "memory": processes.evaluate_in_little_shared_memory,
}
VERDICTS = {True: "passed", False: "**failed**", None: "left out"}


def run_checks(trial: Trial, names: Sequence[str], tell: Callable[[str], None]) -> tuple[str, bool]:
    """Run the checks; one that raises has failed, and the others still run.

    Args:
        trial: the folder and the device.
        names: which of ``CHECKS``.
        tell: called with a line about each check when it ends.

    Returns:
        The page, in Markdown, and whether no check failed.
    """
    sections, summary, passed = [], [], True
    for name in names:
        began = time.perf_counter()
        finding = _attempt(CHECKS[name], trial)
        took = f"{time.perf_counter() - began:.0f} s"
        tell(f"{name}: {VERDICTS[finding.passed].strip('*')} ({took})")
        passed &= finding.passed is not False
        what = str(CHECKS[name].__doc__).splitlines()[0]
        summary.append([name, VERDICTS[finding.passed], what, took])
        sections += ["", f"## {name}: {VERDICTS[finding.passed].strip('*')}", "", what, "", *finding.lines]
    return "\n".join([*_head(trial), *table(["check", "", "what", "took"], summary), *sections, ""]), passed


def _attempt(check: Callable[[Trial], Finding], trial: Trial) -> Finding:
    try:
        return check(trial)
    except Exception:  # whatever it is, it is a finding
        return Finding(False, ["```", *traceback.format_exc().splitlines(), "```"])


def _head(trial: Trial) -> Iterator[str]:
    facts = trial.facts()
    yield f"# GPU checks: {facts['card']}"
    yield ""
    yield from (f"- {name}: {value}" for name, value in facts.items())
    if trial.rehearsal:
        yield "- Shortened, and on the CPU throughout: this shows that the checks work, and nothing about a GPU."
    yield ""
