"""How does what a model is trained on show in what it predicts well?

Takes two corpora, trains a small model on each of three mixtures of them, and measures every model on the held-out
files of both. One tokenizer, trained on both corpora, serves all, so that the figures can be compared. Other weights
tokenise nothing again: a mixture is a setting of the training.

    python experiments/tutorials/data_mixture.py --dry_run
    python experiments/tutorials/data_mixture.py
    python experiments/tutorials/data_mixture.py --sources ~/src/project ~/Documents/notes --shares 0.9 0.5 0.1

Expected: each corpus is predicted best by the model that saw most of it; the even mixture lies between the two on both.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from experiments.lib.report.mixtures import MIXTURES_PAGE_FILE, mixture_lines
from experiments.lib.splits import VALIDATION
from experiments.lib.train.config import TrainRecipe
from experiments.steps.defaults import default_tokenize_together, default_train
from experiments.steps.evaluate import model_evaluation
from experiments.steps.report import mixture_comparison
from experiments.tutorials.hello_corpus import corpus_name, located
from experiments.tutorials.train_tiny_model_cpu import TrainFlags, recipe_of, source_documents
from marin_trace import StepRef, executor_main, parse_flags, step


@dataclass(frozen=True)
class MixtureFlags:
    """The flags of this experiment."""

    sources: list[str] = field(default_factory=lambda: ["stdlib/asyncio", "stdlib/email"])
    """Two directories, files, globs or fsspec URLs; by default event loops and mail of the standard library."""

    shares: list[float] = field(default_factory=lambda: [0.75, 0.5, 0.25])
    """Of the first source, between 0 and 1: one mixture and one model each."""

    vocab_size: int = 2048
    validation_fraction: float = 0.25
    """The share of files that is held out: large, since the sources are small."""

    workers: int = 2
    """Processes that curate and tokenise; no part of the result."""

    train: TrainFlags = field(default_factory=lambda: TrainFlags(minutes=0.5))


def mixtures_of(names: tuple[str, str], shares: list[float]) -> dict[str, dict[str, float]]:
    """The weights of each mixture, by a name that says them.

    Raises:
        ValueError: A share leaves nothing of one of the corpora.

    Example:
        >>> mixtures_of(("code", "prose"), [0.75])
        {'code-75-prose-25': {'code': 0.75, 'prose': 0.25}}
    """
    if wrong := [share for share in shares if not 0 < share < 1]:
        raise ValueError(f"a share lies between 0 and 1, and is neither: not {wrong[0]:g}")
    first, second = names
    return {
        f"{first}-{100 * share:.4g}-{second}-{100 * (1 - share):.4g}": {first: share, second: 1 - share}
        for share in shares
    }


def names_of(sources: list[str]) -> tuple[str, str]:
    """What the two corpora are called.

    Raises:
        ValueError: They are not two, or would have one name.
    """
    if len(sources) != 2:
        raise ValueError(f"--sources takes two sources, not {len(sources)}")
    first, second = (corpus_name(source) for source in sources)
    return (first, second) if first != second else (f"{first}-1", f"{second}-2")


@step(name="tutorials/data_mixture/{name}")
def data_mixture(
    name: str, sources: Mapping[str, str], weights: Mapping[str, Mapping[str, float]], flags: MixtureFlags
) -> dict[str, StepRef]:
    """A group: two corpora, a model for each mixture, and each model measured on each corpus.

    Args:
        name: Of the tokenizer and of the comparison.
        sources: Of each corpus by its name.
        weights: Of each corpus, for each mixture by its name.
        flags: All else.
    """
    recipe: TrainRecipe = recipe_of(flags.train)
    tokens = default_tokenize_together(
        name,
        {corpus: source_documents(corpus, source) for corpus, source in sources.items()},
        vocab_size=flags.vocab_size,
        validation_fraction=flags.validation_fraction,
        workers=flags.workers,
    )
    models = {
        mixture: default_train(f"mixture-{mixture}", tokens, recipe, weights=weights[mixture]) for mixture in weights
    }
    evaluations = {
        # The last checkpoint: the best one was chosen by the held-out files of the first corpus.
        mixture: {
            corpus: model_evaluation(f"{mixture}-on-{corpus}", model, tokens[corpus] / VALIDATION, last=True)
            for corpus in tokens
        }
        for mixture, model in models.items()
    }
    return {"comparison": mixture_comparison(name, f"Mixtures of {' and '.join(sources)}", weights, evaluations)}


def main() -> None:
    """Runs the experiment and prints its table."""
    flags = parse_flags(MixtureFlags)
    flags = replace(flags, sources=[located(source) for source in flags.sources])
    names = names_of(flags.sources)
    weights = mixtures_of(names, flags.shares)
    refs = data_mixture("-and-".join(names), dict(zip(names, flags.sources, strict=True)), weights, flags)
    run = executor_main(steps=[refs], description="Models of several mixtures of two corpora")
    if run.dry_run or not run.includes(refs["comparison"]):
        return
    print()
    for line in mixture_lines(run.artifact(refs["comparison"])):
        print(line)
    print(f"report: {run.output_path(refs['comparison'])}/{MIXTURES_PAGE_FILE}")


if __name__ == "__main__":
    main()
