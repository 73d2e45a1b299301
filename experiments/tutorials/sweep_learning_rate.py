"""Which learning rate suits a tiny model best?

Trains one small model with each of several learning rates, all on the same tokens and in one graph, and compares them:
the last step reads what every training returned, plots their curves and names the best rate. A rate that is added later
is trained alone; the others, and the tokens, are found finished.

    python experiments/tutorials/sweep_learning_rate.py --dry_run
    python experiments/tutorials/sweep_learning_rate.py
    python experiments/tutorials/sweep_learning_rate.py --learning_rates 1e-3 4e-3 1.6e-2 3.2e-2 --train.minutes 1

Expected: of the three rates, a factor of four apart, the middle one wins; the largest is furthest behind.
"""

from dataclasses import dataclass, field, replace

from experiments.lib.corpus.collect import STDLIB
from experiments.lib.llama.config import LlamaConfig
from experiments.lib.report.sweep import SWEEP_FIGURE_FILE, SWEEP_PAGE_FILE, sweep_lines
from experiments.steps.defaults import default_train
from experiments.steps.report import learning_rate_comparison
from experiments.tutorials.hello_corpus import corpus_name, located
from experiments.tutorials.train_tiny_model_cpu import TrainFlags, recipe_of, source_tokens
from marin_trace import StepRef, executor_main, parse_flags, step


@dataclass(frozen=True)
class SweepTrainFlags:
    """How to train, with each rate."""

    minutes: float = 0.5
    """About how long each training takes on two cores by itself."""

    seed: int = 0
    model: LlamaConfig = field(default_factory=LlamaConfig)


@dataclass(frozen=True)
class SweepFlags:
    """The flags of this experiment."""

    source: str = STDLIB
    """A directory, a file, a glob or an fsspec URL; by default the standard library of the Python that runs."""

    learning_rates: list[float] = field(default_factory=lambda: [1e-3, 4e-3, 1.6e-2])
    """One training each."""

    vocab_size: int = 2048
    workers: int = 2
    """Processes that curate and tokenise; no part of the result."""

    train: SweepTrainFlags = field(default_factory=SweepTrainFlags)


@step(name="tutorials/sweep_learning_rate/{name}")
def sweep_learning_rate(name: str, flags: SweepFlags) -> dict[str, StepRef]:
    """A group: the tokens once, a training for each rate, and their comparison."""
    tokens = source_tokens(name, flags.source, vocab_size=flags.vocab_size, workers=flags.workers)
    models = {
        rate: default_train(
            f"sweep-{name}-lr-{rate:g}",
            tokens,
            recipe_of(
                TrainFlags(
                    minutes=flags.train.minutes, learning_rate=rate, seed=flags.train.seed, model=flags.train.model
                )
            ),
        )
        for rate in sorted(set(flags.learning_rates))
    }
    return {"comparison": learning_rate_comparison(name, f"Learning rates on {name}", models)}


def main() -> None:
    """Runs the experiment and prints what came of it."""
    flags = parse_flags(SweepFlags)
    flags = replace(flags, source=located(flags.source))
    refs = sweep_learning_rate(corpus_name(flags.source), flags)
    run = executor_main(steps=[refs], description="A sweep over learning rates")
    if run.dry_run or not run.includes(refs["comparison"]):
        return
    print()
    for line in sweep_lines(run.artifact(refs["comparison"])):
        print(line)
    comparison = run.output_path(refs["comparison"])
    print(f"report: {comparison}/{SWEEP_PAGE_FILE}")
    print(f"plot:   {comparison}/{SWEEP_FIGURE_FILE}")


if __name__ == "__main__":
    main()
