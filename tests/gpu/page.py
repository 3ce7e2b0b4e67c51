"""The page that is made of the checks."""

import pytest

from tests.gpu.trial import table

TRIAL = pytest.StashKey()
VERDICTS = {"passed": "passed", "failed": "**failed**", "skipped": "left out"}


class Page:
    """A plugin of pytest that runs the chosen checks, and collects what they found.

    Args:
        trial: the device and the folder.
        names: of the checks, in the order in which they run.
    """

    def __init__(self, trial, names):
        self.trial, self.names = trial, names
        self._summary, self._sections = [], []

    def pytest_configure(self, config):
        """Set the device and the folder that the checks get."""
        config.stash[TRIAL] = self.trial

    def pytest_collection_modifyitems(self, items):
        """Keep the chosen checks."""
        checks = {item.name.removeprefix("test_"): item for item in items}
        items[:] = [checks[name] for name in self.names if name in checks]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(self, item):
        """Add a check's section."""
        report = yield
        if report.when == "call" or not report.passed:
            self._add(item.name.removeprefix("test_"), item.function.__doc__.splitlines()[0], report)
        return report

    def _add(self, name, what, report):
        verdict, took = VERDICTS[report.outcome], f"{report.duration:.0f} s"
        lines = dict(report.user_properties).get("lines", [])
        self._summary.append([name, verdict, what, took])
        self._sections += ["", f"## {name}: {verdict.strip('*')}", "", what, "", *lines]
        if report.skipped:
            self._sections += ["", report.longrepr[2].removeprefix("Skipped: ")]
        elif report.failed:
            self._sections += ["", "```", *report.longreprtext.splitlines(), "```"]

    def text(self):
        """Return the page, in Markdown."""
        facts = self.trial.facts()
        head = [f"# GPU checks: {facts['card']}", "", *(f"- {name}: {value}" for name, value in facts.items())]
        if self.trial.rehearsal:
            head.append(
                "- Shortened, and on the CPU throughout: this shows that the checks work, and nothing about a GPU."
            )
        summary = table(["check", "", "what", "took"], self._summary)
        return "\n".join([*head, "", *summary, *self._sections, ""])
