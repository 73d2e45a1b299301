"""How well does a model of a million parameters learn to write Python in three minutes on a laptop?

Collects the source files of the standard library (or of any other source), curates them, trains a tokenizer and a small
Llama-style model, and measures the model on held-out files, beside what counting bytes achieves. A second run finds
every step finished, and does not even import JAX.

    python experiments/tutorials/train_tiny_model_cpu.py --dry_run
    python experiments/tutorials/train_tiny_model_cpu.py
    python experiments/tutorials/train_tiny_model_cpu.py --source ~/src/my_project --train.minutes 20

Expected: about 1.65 bits per byte on held-out files, where single bytes take 4.75 and byte 5-grams 1.68.
"""

import platform
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from experiments.lib.corpus.collect import DOCUMENTS_FILE, STDLIB, is_stdlib
from experiments.lib.llama.config import LlamaConfig
from experiments.lib.report.training import FIGURE_FILE, HTML_FILE, MARKDOWN_FILE, summary_lines
from experiments.lib.train.config import CheckpointPolicy, Layout, OptimizerConfig, TrainRecipe
from experiments.steps.corpus import collected_documents
from experiments.steps.defaults import default_speedrun, default_tokenize
from experiments.tutorials.hello_corpus import corpus_name, located
from marin_trace import ResourceConfig, StepRef, executor_main, parse_flags, step

if TYPE_CHECKING:
    from marin_trace.runtime.report import RunReport

STEPS_PER_MINUTE = 240
"""What two cores of a laptop do of `recipe_of`; the length of a training is in steps, whatever they take elsewhere."""

PROMPTS = ("def read_file(path):\n", "class Stack:\n    ", "import os\n")


@dataclass(frozen=True)
class TrainFlags:
    """How to train."""

    minutes: float = 3.0
    """About how long on two cores: the steps are this times a fixed number, so that the recipe is the same anywhere."""

    learning_rate: float = 4e-3
    seed: int = 0
    model: LlamaConfig = field(default_factory=LlamaConfig)
    """Its shape. A larger one takes longer for each step."""


@dataclass(frozen=True)
class TinyModelFlags:
    """The flags of this experiment."""

    source: str = STDLIB
    """A directory, a file, a glob or an fsspec URL; by default the standard library of the Python that runs."""

    vocab_size: int = 2048
    workers: int = 2
    """Processes that curate and tokenise; no part of the result."""

    train: TrainFlags = field(default_factory=TrainFlags)


@dataclass(frozen=True)
class Places:
    """Which machines do what; None: this one. No part of any result."""

    tokens: ResourceConfig | None = None
    """Curates and tokenises."""

    training: ResourceConfig | None = None

    measuring: ResourceConfig | None = None
    """Evaluates the model and lets it write: one machine."""

    layout: Layout | None = None
    """How the training lies on the devices that it is given."""


def recipe_of(flags: TrainFlags) -> TrainRecipe:
    """The recipe of a training of about so many minutes."""
    steps = max(1, round(flags.minutes * STEPS_PER_MINUTE))
    return TrainRecipe(
        model=flags.model,
        optimizer=OptimizerConfig(learning_rate=flags.learning_rate, warmup_steps=min(50, steps // 2)),
        checkpoints=CheckpointPolicy(every_steps=max(1, min(200, steps // 3))),
        steps=steps,
        # Processors have no arithmetic of bfloat16 that would be faster.
        compute_dtype="float32",
        seed=flags.seed,
    )


@step(name="tutorials/documents/{name}")
def source_documents(name: str, source: str) -> StepRef:
    """The files of a source."""
    # The path of a standard library says too little about its content, so its version is part of the recipe.
    revision, suffixes = (platform.python_version(), (".py",)) if is_stdlib(source) else ("", ())
    return collected_documents(name, source, revision=revision, suffixes=suffixes) / DOCUMENTS_FILE


@step(name="tutorials/tokens/{name}")
def source_tokens(
    name: str, source: str, *, vocab_size: int, workers: int, resources: ResourceConfig | None = None
) -> StepRef:
    """The tokens of a source's files, a twentieth of them held out."""
    documents = source_documents(name, source)
    return default_tokenize(name, documents, vocab_size=vocab_size, workers=workers, resources=resources)


@step(name="tutorials/train_tiny_model/{name}")
def train_tiny_model(name: str, flags: TinyModelFlags, places: Places | None = None) -> dict[str, StepRef]:
    """A group: from the files of a source to a page about a model that was trained on them."""
    on = places or Places()
    tokens = source_tokens(name, flags.source, vocab_size=flags.vocab_size, workers=flags.workers, resources=on.tokens)
    made = default_speedrun(
        f"tiny-{name}",
        tokens,
        recipe_of(flags.train),
        prompts=PROMPTS,
        layout=on.layout,
        train_on=on.training,
        measure_on=on.measuring,
    )
    return {"tokens": tokens, **made}


def show(run: "RunReport", refs: dict[str, StepRef]) -> None:
    """Prints what came of a run."""
    if run.dry_run or not run.includes(refs["report"]):
        return
    print()
    for line in summary_lines(*(run.artifact(refs[name]) for name in ("model", "evaluation", "baselines"))):
        print(line)
    report = run.output_path(refs["report"])
    print(f"report: {report}/{HTML_FILE} (or {MARKDOWN_FILE})")
    print(f"plot:   {report}/{FIGURE_FILE}")


def main() -> None:
    """Runs the experiment and prints what came of it."""
    flags = parse_flags(TinyModelFlags)
    flags = replace(flags, source=located(flags.source))
    refs = train_tiny_model(corpus_name(flags.source), flags)
    show(executor_main(steps=[refs], description="A tiny language model"), refs)


if __name__ == "__main__":
    main()
