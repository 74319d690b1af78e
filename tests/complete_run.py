"""A run that left tests out is no passed run: what was collected is compared with what has run or was skipped.

Lives here: the pytest plugin for that; `tests/conftest.py` registers it. Must not know: any test.

Two tests of one id count as one to pytest-xdist, which then runs one of them: ids that occur twice end the collection.
"""

from collections import Counter
from collections.abc import Sequence

import pytest


class CompleteRun:
    """One for each pytest process; in a run over several processes the one that steers them judges."""

    def __init__(self, config: pytest.Config) -> None:
        self._steers = not hasattr(config, "workerinput")
        self._collected: set[str] = set()
        self._over: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: Sequence[pytest.Item]) -> None:
        twice = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
        if twice:
            raise pytest.UsageError(f"{len(twice)} ids stand for several tests each, among them {twice[0]}")

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        self._collected.update(item.nodeid for item in session.items)

    @pytest.hookimpl(optionalhook=True)
    def pytest_xdist_node_collection_finished(self, ids: Sequence[str]) -> None:
        self._collected.update(ids)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "teardown":
            self._over.add(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        asked_to_stop = session.shouldstop or session.shouldfail or session.config.option.collectonly
        left_out = sorted(self._collected - self._over)
        if self._steers and left_out and not asked_to_stop and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
            reporter = session.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                count, whole = len(left_out), len(self._collected)
                reporter.write_line(f"\nFAILED: {count} of {whole} collected tests did not run, first {left_out[0]}")
