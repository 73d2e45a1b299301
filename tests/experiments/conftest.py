"""What tests share: a web server that misbehaves, compiled programs, and a training that nothing interrupted."""

import os
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from tests.experiments.web_server import Server, running_server
from tests.training_runs import train_config, write_corpus


@pytest.fixture(scope="session", autouse=True)
def compiled_programs(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Has JAX optimise less, and keep what it compiles for the other processes of this test run.

    Compiling takes longer than training here: 8 s of a processor in full for a step and its initial state.
    """
    base = tmp_path_factory.getbasetemp()
    # The workers of one parallel run have directories side by side.
    cache = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "jax-cache"
    options = {
        "jax_platforms": "cpu",
        "jax_disable_most_optimizations": True,
        "jax_compilation_cache_dir": str(cache),
        "jax_persistent_cache_min_compile_time_secs": 0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    for name, value in options.items():
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A directory with the stores that `train_config` names."""
    write_corpus(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, compiled_programs: None) -> Path:
    """A directory with the corpus, and below `model` a finished training on it. Not to be changed."""
    from experiments.lib.train.train import train_model

    root = tmp_path_factory.mktemp("trained")
    write_corpus(root)
    train_model(train_config(root))
    return root


@pytest.fixture
def server() -> Iterator[Server]:
    """A web server that can be told how to misbehave."""
    with running_server() as server:
        yield server
