"""A web server that can be told how to misbehave."""

from collections.abc import Iterator

import pytest

from tests.experiments.web_server import Server, running_server


@pytest.fixture
def server() -> Iterator[Server]:
    with running_server() as server:
        yield server
