"""What the small samples of the soak share."""

import logging
from collections.abc import Iterator

import pytest

from tests.soak.checks import Data
from tests.soak.kills import reference


@pytest.fixture(autouse=True)
def log_level() -> Iterator[None]:
    """The soak is quiet; what runs after it in the same process is not."""
    ours = logging.getLogger("marin_trace")
    before = ours.level
    yield
    ours.setLevel(before)


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """What one undisturbed run of the experiment leaves."""
    return reference(tmp_path_factory.mktemp("reference") / "site")
