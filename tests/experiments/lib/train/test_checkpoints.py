from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.lib.train.checkpoints import DamagedCheckpointError, checksum, read_description, saved_steps
from experiments.lib.train.config import CheckpointPolicy, Layout
from experiments.lib.train.train import train_model
from experiments.lib.train.trained import load_model
from tests.training_runs import MODEL, VOCAB_SIZE, train_config

ARRAYS = {"a": jnp.arange(6, dtype=jnp.float32).reshape(2, 3), "b": jnp.int32(7)}


@pytest.mark.parametrize(
    "changed",
    [
        {**ARRAYS, "b": jnp.int32(8)},
        {**ARRAYS, "a": ARRAYS["a"].at[1, 2].set(np.nextafter(np.float32(5), np.float32(6)))},
        {**ARRAYS, "a": ARRAYS["a"][:, ::-1]},
        {**ARRAYS, "a": -ARRAYS["a"]},
    ],
    ids=["a number", "one bit", "places", "signs"],
)
def test_a_checksum_notices(changed: dict[str, jax.Array]) -> None:
    assert checksum(ARRAYS) == checksum(dict(reversed(ARRAYS.items())))
    assert checksum(changed) != checksum(ARRAYS)


def test_a_model_is_read_back(trained: Path) -> None:
    loaded = load_model(str(trained / "model"), 12, layout=Layout())
    assert loaded.description == read_description(str(trained / "model"))
    assert (loaded.description.config, loaded.description.vocab_size) == (MODEL, VOCAB_SIZE)
    assert loaded.model.layers.attention.q_proj.shape == (2, 16, 4, 4)


def test_a_checkpoint_that_is_not_there_is_named_with_those_that_are(trained: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no checkpoint of step 5 in \S+/checkpoints; there are: \[8, 12\]"):
        load_model(str(trained / "model"), 5, layout=Layout())


def test_a_damaged_checkpoint_is_named(trained: Path, tmp_path: Path) -> None:
    import shutil

    copied = Path(shutil.copytree(trained / "model", tmp_path / "model"))
    for file in (copied / "checkpoints" / "12" / "model" / "d").iterdir():
        file.unlink()
    with pytest.raises(DamagedCheckpointError, match=r"the checkpoint \S+/12 cannot be read"):
        load_model(str(copied), 12, layout=Layout())


def test_trainings_of_one_process_do_not_mix_up_their_checkpoints(corpus: Path) -> None:
    names = ["first", "second"]
    configs = [
        train_config(
            corpus, output=name, steps=6, checkpoints=CheckpointPolicy(every_steps=1, keep_last=9), log_every=9
        )
        for name in names
    ]
    with ThreadPoolExecutor(len(configs)) as pool:
        models = list(pool.map(train_model, configs))
    assert [saved_steps(config.output_path) for config in configs] == [[1, 2, 3, 4, 5, 6]] * 2
    assert len({model.best_validation_loss for model in models}) == 1
    for config in configs:
        load_model(config.output_path, 3, layout=Layout())


def test_nothing_is_saved_where_nothing_was_trained(tmp_path: Path) -> None:
    assert saved_steps(str(tmp_path / "absent")) == []


def test_a_checkpoint_that_is_being_written_is_not_saved_yet(tmp_path: Path) -> None:
    for name in ("4", "8.orbax-checkpoint-tmp", "notes"):
        (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert saved_steps(str(tmp_path)) == [4]
