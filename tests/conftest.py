"""What every test gets: a prefix of its own, so that nothing is written into the checkout."""

import signal
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.workers.engines import engine_lines
from tests.workers.iris_site import IrisCluster, iris_cluster, require_iris

# No deadline: how long one example takes depends on what else the machine does.
settings.register_profile("suite", deadline=None)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def prefix(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """The prefix that a run without ``--prefix`` uses: an empty directory of this test."""
    path = str(tmp_path_factory.mktemp("prefix"))
    monkeypatch.setenv("MARIN_PREFIX", path)
    return path


@pytest.fixture(scope="session")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IrisCluster]:
    """An Iris cluster with processors and slices of fake TPUs; skips where it cannot run."""
    require_iris()
    with iris_cluster(tmp_path_factory.mktemp("iris")) as cluster:
        yield cluster


def pytest_configure() -> None:
    """Lets Ctrl-C reach the processes under test: a job in the background of a shell is started with it ignored."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Says which engines the tests ran on, and why others were left out."""
    lines = engine_lines([report for reports in terminalreporter.stats.values() for report in reports])
    if lines:
        terminalreporter.section("engines")
        for line in lines:
            terminalreporter.write_line(line)
