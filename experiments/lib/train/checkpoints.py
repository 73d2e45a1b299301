"""The state of a training on disk: the last few checkpoints and the best one.

Written by Orbax in the background, each under a temporary name until it is whole. Parameters and optimiser are separate
items, so that an evaluation reads a third of the bytes. Below the training's output path::

    model.json                    ModelDescription
    checkpoints/400/model/        parameters by name
    checkpoints/400/optimizer/    step and moments by name
    checkpoints/400/progress/     Progress

Orbax and TensorStore check what they read in part: a changed byte within an array's data passes. So each checkpoint
carries checksums of its arrays, taken on the devices that held them, and a checkpoint that does not have them any more
counts as damaged.

In an object store one process's checkpoints are copies of what Orbax has written to a local disk
(`experiments.lib.train.checkpoint_mirror`). Those of several processes Orbax writes by itself, which it can to ``gs://``.
"""

import json
import logging
import os
import tempfile
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from types import TracebackType
from typing import Any, final

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp
from jax import Array
from orbax.checkpoint import checkpoint_managers

from experiments.lib.files import read_text
from experiments.lib.llama.config import LlamaConfig
from experiments.lib.llama.model import Llama
from experiments.lib.train.checkpoint_mirror import CheckpointMirror, fetched_checkpoint, mirrored_steps
from experiments.lib.train.config import CheckpointPolicy
from experiments.lib.train.train_step import TrainState
from marin_trace.io import atomic_write

__all__ = [
    "CHECKPOINTS",
    "MODEL_FILE",
    "Checkpoints",
    "DamagedCheckpointError",
    "ModelDescription",
    "Progress",
    "arrays_by_name",
    "checksum",
    "load_parameters",
    "read_description",
    "saved_steps",
    "write_description",
]

CHECKPOINTS = "checkpoints"
"""The directory of checkpoints below a training's output path."""

MODEL_FILE = "model.json"
"""What says of which shape a training's model is, below its output path."""

UNREADABLE = (OSError, ValueError, KeyError, TypeError)
"""What Orbax raises for a checkpoint whose files are missing, cut off or changed."""

logger = logging.getLogger(__name__)

_beginning_to_save = threading.Lock()
"""Orbax counts the saves of a process in one number, and knows what belongs to a save by it: of two trainings in one
process only one may begin a save at a time. What is written in the background has noted its number by then."""


class DamagedCheckpointError(ValueError):
    """A checkpoint cannot be read, or is not what was saved; the message names it and says what to do."""


@dataclass(frozen=True)
class ModelDescription:
    """What one must know of a model besides its parameters."""

    config: LlamaConfig
    vocab_size: int
    end_of_document: int
    sequence_length: int
    """The longest sequence that it was trained on."""


@dataclass(frozen=True)
class Progress:
    """What a checkpoint says of itself."""

    step: int
    validation_loss: float
    model_checksum: int
    optimizer_checksum: int


@final
class Checkpoints:
    """The checkpoints of one training; a context manager that waits, when it ends, until all is written.

    Args:
        output_path: Of the training.
        policy: Which checkpoints stay.
    """

    def __init__(self, output_path: str, policy: CheckpointPolicy) -> None:
        self.path = _directory(output_path)
        self._mirror = _mirror_of(self.path)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=checkpoint_managers.AnyPreservationPolicy(
                [
                    checkpoint_managers.LatestN(policy.keep_last),
                    # Reversed, the best is the least.
                    checkpoint_managers.BestN(get_metric_fn=_validation_loss, reverse=True, n=1),
                ]
            ),
            # Without these Orbax forgets the losses of earlier attempts' checkpoints.
            best_fn=_validation_loss,
            best_mode="min",
            # What an attempt that was killed while saving left behind.
            cleanup_tmp_directories=True,
        )
        self._manager = ocp.CheckpointManager(self._mirror.directory if self._mirror else self.path, options=options)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._manager.close()
        if self._mirror is not None:
            self._mirror.close()

    @property
    def steps(self) -> list[int]:
        """Of the checkpoints that are there or being written, in order."""
        return sorted(self._manager.all_steps())

    def save(self, state: TrainState, *, validation_loss: float) -> None:
        """Begins to save a state, once the one before is written; what is no longer kept is deleted.

        Blocks while the arrays are copied to the host's memory: the state may be used up afterwards.
        """
        if self._mirror is not None:
            self._mirror.check()
        step = int(state.step)
        model, optimizer = arrays_by_name(state.model), _optimizer_arrays(state)
        progress = Progress(step, validation_loss, checksum(model), checksum(optimizer))
        items = ocp.args.Composite(
            model=ocp.args.StandardSave(model),
            optimizer=ocp.args.StandardSave(optimizer),
            progress=ocp.args.JsonSave(asdict(progress)),
        )
        with _beginning_to_save:
            self._manager.save(step, args=items, metrics={"validation_loss": validation_loss})

    def restore_latest(self, abstract: TrainState) -> TrainState | None:
        """The state of the last checkpoint that can be read, laid out as asked; None where there is no checkpoint.

        Later ones that cannot be read are deleted, with a warning: their steps are done again.

        Args:
            abstract: Shapes and places, from :func:`experiments.lib.train.train_step.abstract_state`.

        Raises:
            DamagedCheckpointError: There are checkpoints, and none can be read.
        """
        damaged: list[tuple[int, Exception]] = []
        for step in reversed(self.steps):
            try:
                state = self._restore(step, abstract)
            except UNREADABLE as error:
                damaged.append((step, error))
                continue
            for later, error in damaged:
                logger.warning(
                    f"checkpoint {self.path}/{later} is damaged and deleted; going on from step {step}: "
                    f"{_first_line(error)}"
                )
                self._manager.delete(later)
            return state
        if damaged:
            step, error = damaged[0]
            raise DamagedCheckpointError(
                f"none of the checkpoints in {self.path} can be read; {step}, the last one: {_first_line(error)}\n\n"
                f"hint: copy the directory back from where it was sound; or delete {self.path} to train from the start"
            ) from error
        return None

    def _restore(self, step: int, abstract: TrainState) -> TrainState:
        restored: Any = self._manager.restore(
            step,
            args=ocp.args.Composite(
                model=ocp.args.StandardRestore(arrays_by_name(abstract.model)),
                optimizer=ocp.args.StandardRestore(_optimizer_arrays(abstract)),
                progress=ocp.args.JsonRestore(),
            ),
        )
        progress = Progress(**restored.progress)
        _verify(f"{self.path}/{step}/model", restored.model, progress.model_checksum)
        _verify(f"{self.path}/{step}/optimizer", restored.optimizer, progress.optimizer_checksum)
        optimizer = dict(restored.optimizer)
        return TrainState(
            step=optimizer.pop("step"),
            model=_with_arrays(abstract.model, restored.model),
            optimizer=_with_arrays(abstract.optimizer, optimizer),
        )


def load_parameters(output_path: str, step: int, abstract: Llama) -> Llama:
    """The parameters of one checkpoint of a training.

    Args:
        output_path: Of the training.
        step: One that was kept, such as ``TrainedModel.best_step``.
        abstract: The model's shapes and places.

    Raises:
        FileNotFoundError: There is no such checkpoint.
        DamagedCheckpointError: It cannot be read.
    """
    path = _directory(output_path)
    if step not in (kept := saved_steps(output_path)):
        raise FileNotFoundError(f"no checkpoint of step {step} in {path}; there are: {kept}")
    # A manager that only reads says so three times at WARNING.
    with (
        ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer,
        _readable(path, step) as directory,
    ):
        args = ocp.args.Composite(
            model=ocp.args.StandardRestore(arrays_by_name(abstract)), progress=ocp.args.JsonRestore()
        )
        try:
            restored = checkpointer.restore(directory, args=args)
            _verify(f"{path}/{step}/model", restored.model, Progress(**restored.progress).model_checksum)
        except UNREADABLE as error:
            raise DamagedCheckpointError(
                f"the checkpoint {path}/{step} cannot be read: {_first_line(error)}\n\n"
                f"hint: choose another one of {kept}, or train again"
            ) from error
    return _with_arrays(abstract, restored.model)


def saved_steps(output_path: str) -> list[int]:
    """The steps of the whole checkpoints, in order, of a training that may have ended, still run, or not have begun."""
    path = _directory(output_path)
    return mirrored_steps(path) if "://" in path else sorted(ocp.utils.checkpoint_steps(path))


def checksum(arrays: Mapping[str, Array]) -> int:
    """A number below 2³² that changes with any bit of the arrays, and not with where they lie.

    Sums of whole numbers come out the same in whatever order the devices add them.
    """
    return int(_checksum(dict(arrays)))


@jax.jit
def _checksum(arrays: dict[str, Array]) -> Array:
    total = jnp.uint32(0)
    for name in sorted(arrays):
        words = jax.lax.bitcast_convert_type(arrays[name], jnp.uint32).reshape(-1)
        # With its place, so that words that change places are noticed; a sum of plain words would miss pairs of signs.
        placed = words + jnp.arange(words.size, dtype=jnp.uint32) * jnp.uint32(0x9E3779B9)
        total = 31 * total + jnp.sum(_mixed(placed), dtype=jnp.uint32)
    return total


def _mixed(words: Array) -> Array:
    """The finaliser of MurmurHash3 (Appleby 2011): each bit of a word depends on all of its bits."""
    words = (words ^ (words >> 16)) * jnp.uint32(0x85EBCA6B)
    words = (words ^ (words >> 13)) * jnp.uint32(0xC2B2AE35)
    return words ^ (words >> 16)


def arrays_by_name(tree: Any) -> dict[str, Any]:
    """The arrays of a tree under dotted names, such as ``layers.attention.q_proj``."""
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def write_description(output_path: str, description: ModelDescription) -> None:
    """Writes ``model.json``."""
    with atomic_write(f"{output_path}/{MODEL_FILE}", "w") as file:
        json.dump(asdict(description), file, indent=1)
        file.write("\n")


def read_description(output_path: str) -> ModelDescription:
    """Reads ``model.json``.

    Raises:
        FileNotFoundError: Nothing was trained there.
    """
    record = json.loads(read_text(f"{output_path}/{MODEL_FILE}"))
    return ModelDescription(**record | {"config": LlamaConfig(**record["config"])})


def _with_arrays(tree: Any, arrays: Mapping[str, Any]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: arrays[_name(path)], tree)


def _optimizer_arrays(state: TrainState) -> dict[str, Any]:
    return {"step": state.step, **arrays_by_name(state.optimizer)}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")


def _verify(place: str, arrays: Mapping[str, Array], expected: int) -> None:
    if (found := checksum(arrays)) != expected:
        raise DamagedCheckpointError(f"{place} has the checksum {found:08x}, and {expected:08x} when it was saved")


def _validation_loss(metrics: Mapping[str, float]) -> float:
    return metrics["validation_loss"]


def _directory(output_path: str) -> str:
    return f"{output_path if '://' in output_path else os.path.abspath(output_path)}/{CHECKPOINTS}"


def _mirror_of(path: str) -> CheckpointMirror | None:
    if "://" not in path:
        return None
    if jax.process_count() == 1:
        return CheckpointMirror(path)
    if not path.startswith("gs://"):
        raise ValueError(
            f"several processes cannot write checkpoints to {path}\n\n"
            "hint: train in one process, or below a prefix in gs:// or on a disk that all of them reach"
        )
    return None


@contextmanager
def _readable(path: str, step: int) -> Generator[str, None, None]:
    """Where the model of a checkpoint can be read."""
    if "://" not in path or jax.process_count() > 1:
        yield f"{path}/{step}"
        return
    with tempfile.TemporaryDirectory(prefix="checkpoint-") as directory:
        fetched_checkpoint(f"{path}/{step}", directory, items=("model", "progress"))
        yield directory


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0][:300]
