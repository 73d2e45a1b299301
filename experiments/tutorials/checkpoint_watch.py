"""How good is a model while it is still being trained?

Trains a tiny model, and beside it runs a step that does not wait for the training: it takes the training's path as a
non-blocking ref, looks for new checkpoints, and measures each on the held-out files as soon as it is there. It ends
with the checkpoint of the last step, or with an error once the training has been silent for `--patience_s`.

    python experiments/tutorials/checkpoint_watch.py --dry_run
    python experiments/tutorials/checkpoint_watch.py
    python experiments/tutorials/checkpoint_watch.py --train.minutes 3 --checkpoints 10

Expected: bits per byte that fall from checkpoint to checkpoint, printed while the training goes on.
"""

from dataclasses import dataclass, field, replace

from experiments.lib.corpus.collect import STDLIB
from experiments.lib.evaluate.watch import EVALUATIONS_FILE
from experiments.lib.splits import VALIDATION
from experiments.lib.train.config import CheckpointPolicy, TrainRecipe
from experiments.steps.defaults import default_train
from experiments.steps.evaluate import watched_training
from experiments.tutorials.hello_corpus import corpus_name, located
from experiments.tutorials.train_tiny_model_cpu import TrainFlags, recipe_of, source_tokens
from marin_trace import StepRef, executor_main, parse_flags, step


@dataclass(frozen=True)
class WatchFlags:
    """The flags of this experiment."""

    source: str = STDLIB
    """A directory, a file, a glob or an fsspec URL; by default the standard library of the Python that runs."""

    checkpoints: int = 5
    """How many the training makes, at about equal distances."""

    patience_s: float = 600.0
    """Seconds without a new checkpoint after which the watching step fails; no part of the result."""

    vocab_size: int = 2048
    workers: int = 2
    """Processes that curate and tokenise; no part of the result."""

    train: TrainFlags = field(default_factory=lambda: TrainFlags(minutes=1))


def watched_recipe(flags: WatchFlags) -> TrainRecipe:
    """The recipe of the training, with as many checkpoints as are asked for."""
    recipe = recipe_of(flags.train)
    every = max(1, -(-recipe.steps // max(1, flags.checkpoints)))
    # All of them are kept: a watcher that is late, or comes after the training, still finds each.
    return replace(recipe, checkpoints=CheckpointPolicy(every_steps=every, keep_last=max(1, flags.checkpoints)))


@step(name="tutorials/checkpoint_watch/{name}")
def checkpoint_watch(name: str, flags: WatchFlags) -> dict[str, StepRef]:
    """A group: a training, and what watches it."""
    recipe = watched_recipe(flags)
    tokens = source_tokens(name, flags.source, vocab_size=flags.vocab_size, workers=flags.workers)
    model = default_train(f"watched-{name}", tokens, recipe)
    watched = watched_training(name, model, recipe, tokens / VALIDATION, patience_s=flags.patience_s)
    return {"model": model, "watched": watched}


def main() -> None:
    """Runs the experiment and prints how the model became better."""
    flags = parse_flags(WatchFlags)
    flags = replace(flags, source=located(flags.source))
    refs = checkpoint_watch(corpus_name(flags.source), flags)
    run = executor_main(steps=[refs], description="A training that is watched")
    if run.dry_run or not run.includes(refs["watched"]):
        return
    watched = run.artifact(refs["watched"])
    print()
    for evaluation in watched.evaluations:
        best = " (best)" if evaluation.step == watched.best_step else ""
        print(f"step {evaluation.step:>6}: {evaluation.bits_per_byte:.3f} bits per byte{best}")
    print(f"figures: {run.output_path(refs['watched'])}/{EVALUATIONS_FILE}")


if __name__ == "__main__":
    main()
