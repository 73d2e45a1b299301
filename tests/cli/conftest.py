"""What the tests of commands share."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from marin_trace.cli.main import main
from tests.cli.site import Site, made_site

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """An experiment that was run. Commands that only look may share it."""
    return made_site(tmp_path_factory.mktemp("site"))


@pytest.fixture
def told(capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs a command: its exit code, what it printed, and what it said on stderr."""

    def command(*argv: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(word) for word in argv])
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return command


@pytest.fixture
def told_json(told: Command) -> Callable[..., tuple[int, dict[str, Any]]]:
    """The same with ``--json``: the exit code, and the object."""

    def command(name: object, *argv: object) -> tuple[int, dict[str, Any]]:
        code, out, _ = told(name, "--json", *argv)
        value = json.loads(out)
        assert value["schema_version"] == 1
        return code, value

    return command
