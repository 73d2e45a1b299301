"""Small trainings for tests: in this process, or in one of their own that is killed at a chosen moment.

python -m tests.training_runs ROOT [KILL_AT]     trains below ROOT and prints the losses as JSON
"""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from experiments.lib.llama.config import LlamaConfig
from experiments.lib.mixture import MixtureConfig
from experiments.lib.token_store import write_token_store
from experiments.lib.train.config import (
    CheckpointPolicy,
    Layout,
    OptimizerConfig,
    TrainConfig,
    TrainRecipe,
)
from experiments.lib.train.metrics import METRICS_FILE, StepLine, read_metrics
from experiments.lib.train.train import train_model

ROOT = Path(__file__).parents[1]
VOCAB_SIZE = 32

MODEL = LlamaConfig(
    hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2
)
RECIPE = TrainRecipe(
    model=MODEL,
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=3),
    checkpoints=CheckpointPolicy(every_steps=4, keep_last=2),
    steps=12,
    batch_size=8,
    sequence_length=16,
    compute_dtype="float32",
    validation_sequences=12,
    log_every=3,
)
LOGGED_STEPS = [1, 3, 4, 6, 8, 9, 12]
"""Of RECIPE: the first, every third, and every checkpoint."""

KILLS = ("between steps", "while saving", "after the last step")


def write_corpus(root: Path, *, seed: int = 0) -> None:
    """Two training stores and a validation store of documents that are easy to predict."""
    random = np.random.default_rng(seed)
    for split, count in (("train", 60), ("more", 30), ("validation", 12)):
        steps = [random.integers(1, 3, size=random.integers(10, 60)) for _ in range(count)]
        documents = [(1 + np.cumsum(step) % (VOCAB_SIZE - 1)).tolist() for step in steps]
        size = sum(map(len, documents))
        write_token_store(str(root / split), documents, vocab_size=VOCAB_SIZE, end_of_document=0, num_bytes=size)


def write_tokenizer(path: Path) -> None:
    """A tokenizer of the corpus's vocabulary: the end token, then 31 characters."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    vocabulary = {"<|end|>": 0} | {chr(ord("A") + number): 1 + number for number in range(VOCAB_SIZE - 1)}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    path.mkdir()
    tokenizer.save(str(path / "tokenizer.json"))


def train_config(root: Path, *, output: str = "model", layout: Layout | None = None, **changes: Any) -> TrainConfig:
    """A training on the corpus below a directory; the changes are the recipe's."""
    return TrainConfig(
        recipe=dataclasses.replace(RECIPE, **changes),
        mixture=MixtureConfig({"train": str(root / "train"), "more": str(root / "more")}, {"train": 3.0, "more": 1.0}),
        validation_path=str(root / "validation"),
        output_path=str(root / output),
        layout=layout or Layout(),
    )


def curve(output: str | Path) -> list[tuple[float, ...]]:
    """What of a training's metrics does not depend on the clock: step, loss, rate, gradient norm, validation loss."""
    return [deterministic(line) for line in read_metrics(f"{output}/{METRICS_FILE}")]


def deterministic(line: StepLine) -> tuple[float, ...]:
    validation = -1.0 if line.validation_loss is None else line.validation_loss
    return line.step, line.loss, line.learning_rate, line.grad_norm, validation


def run_killed(root: Path, kill_at: str) -> None:
    """Trains in a process of its own, which does not survive."""
    done = run_python("-m", "tests.training_runs", str(root), kill_at)
    assert done.returncode == -signal.SIGKILL, done.stderr


def run_python(*arguments: str, devices: int = 1) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own that sees so many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def kill_this_process() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arrange_kill(kill_at: str) -> None:
    """Has this process kill itself at one of KILLS, as an operating system would: nothing is cleaned up."""
    from experiments.lib.train import loop
    from experiments.lib.train.checkpoints import Checkpoints

    match kill_at:
        case "between steps":
            calls = iter(range(100))
            # Before step 11 is begun: two steps, and a logged line, after the checkpoint of step 8.
            loop.check_lease = lambda: kill_this_process() if next(calls) == 10 else None
        case "while saving":
            save = Checkpoints.save

            def save_and_die(self: Checkpoints, state: Any, *, validation_loss: float) -> None:
                save(self, state, validation_loss=validation_loss)
                if int(state.step) == 8:
                    # Orbax has returned and goes on writing under a temporary name.
                    assert list(Path(self.path).glob("8.*tmp*"))
                    kill_this_process()

            Checkpoints.save = save_and_die
        case "after the last step":
            loop._trained_model = lambda *arguments: kill_this_process()
        case _:
            raise ValueError(kill_at)


def main() -> None:
    root = Path(sys.argv[1])
    if sys.argv[2:]:
        arrange_kill(sys.argv[2])
    train_model(train_config(root))
    print(json.dumps(curve(root / "model")))


if __name__ == "__main__":
    main()
