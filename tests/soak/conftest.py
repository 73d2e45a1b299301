"""What the small samples of the soak share."""

import pytest

from tests.soak.checks import Data
from tests.soak.kills import reference


@pytest.fixture(scope="session")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Data:
    """What one undisturbed run of the experiment leaves."""
    return reference(tmp_path_factory.mktemp("reference") / "site")
