"""The usual way to do the usual things: groups of steps that compose.

::

    raw = default_download("fineweb", "HuggingFaceFW/fineweb", revision="9bb295d", allow_patterns=["sample/10BT/*"])
    tokens = default_tokenize("fineweb", raw, vocab_size=32_000)
    model = default_train("llama-tiny", tokens, TrainRecipe(steps=2_000))
    measured = default_eval("llama-tiny", model, tokens)

Each is made of the steps of this package, which can be called on their own where the usual is not wanted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from experiments.lib.download.files import RemoteFile
from experiments.lib.splits import TRAIN, VALIDATION
from experiments.lib.train.config import Layout, TrainRecipe
from experiments.steps.corpus import curated_corpus
from experiments.steps.download import downloaded_dataset, downloaded_files
from experiments.steps.evaluate import baseline_evaluation, model_evaluation, model_samples
from experiments.steps.export import exported_model
from experiments.steps.report import training_report
from experiments.steps.tokenize import mixture, tokenized_dataset, trained_tokenizer
from experiments.steps.train import trained_model
from marin_trace import ResourceConfig, StepRef, step


@step(name="defaults/download/{name}")
def default_download(
    name: str,
    source: str | Sequence[RemoteFile],
    *,
    revision: str = "",
    sha256: str = "",
    allow_patterns: Sequence[str] = (),
    workers: int = 4,
) -> StepRef:
    """Downloads a data set of the Hugging Face Hub, where a revision is given, or files by their URLs.

    Args:
        name: What the data is called: it comes to lie below ``raw/{name}``.
        source: With a revision ``owner/name`` on the Hub; else a URL, or files with their URLs and checksums.
        revision: The hash of a commit.
        sha256: Of the file at the URL, in hexadecimal.
        allow_patterns: Of the data set's files only those that match one of these globs.
        workers: Files that are fetched at a time.
    """
    if revision:
        if not isinstance(source, str) or sha256:
            raise ValueError("revision is for a data set of the Hugging Face Hub, which knows its own checksums")
        return downloaded_dataset(name, source, revision, allow_patterns=allow_patterns, workers=workers)
    if allow_patterns:
        raise ValueError("allow_patterns chooses among the files of a data set of the Hub, at a revision=…")
    if not isinstance(source, str) and sha256:
        raise ValueError("sha256 is for one URL; give RemoteFile(url, sha256=…) for each of several")
    files = [RemoteFile(source, sha256=sha256)] if isinstance(source, str) else source
    return downloaded_files(name, files, workers=workers)


@step(name="defaults/tokenize/{name}")
def default_tokenize(
    name: str,
    dataset: StepRef,
    tokenizer: StepRef | None = None,
    *,
    vocab_size: int = 4096,
    text_field: str = "text",
    validation_fraction: float = 0.05,
    workers: int = 1,
    resources: ResourceConfig | None = None,
) -> StepRef:
    """Curates a data set, and tokenises what is left of it: with a tokenizer trained on it if none is given.

    Args:
        name: What the data is called: it comes to lie below ``tokenized/{name}``, the corpus below ``curated/{name}``,
            a tokenizer of its own below ``tokenizers/{name}``.
        dataset: A directory, file or glob of JSON Lines or Parquet. Where a data set brings a test set along, name
            what to take: ``raw / "data" / "train-*.parquet"``.
        tokenizer: A ``tokenizer.json`` or its directory: the output of :func:`trained_tokenizer`, of another
            :func:`default_tokenize`, or ``StepRef.hardcoded(…)``.
        vocab_size: Of a tokenizer of its own.
        text_field: Which field or column of the data set holds the text.
        validation_fraction: The share of documents that is kept from training.
        workers: Processes that curate and encode; no part of the result.
        resources: Of the machine that does each of this; no part of the result either.
    """
    corpus = _on(resources, curated_corpus)(
        name, [dataset], text_field=text_field, validation_fraction=validation_fraction, workers=workers
    )
    if tokenizer is None:
        tokenizer = _on(resources, trained_tokenizer)(name, [corpus / TRAIN], vocab_size=vocab_size)
    return _on(resources, tokenized_dataset)(name, [corpus / TRAIN], [corpus / VALIDATION], tokenizer, workers=workers)


@step(name="defaults/tokenize_together/{name}")
def default_tokenize_together(
    name: str,
    datasets: Mapping[str, StepRef],
    *,
    vocab_size: int = 4096,
    text_field: str = "text",
    validation_fraction: float = 0.05,
    workers: int = 1,
) -> dict[str, StepRef]:
    """Curates several data sets, and tokenises each with one tokenizer that was trained on all: parts of a mixture.

    Args:
        name: What the tokenizer is called.
        datasets: By their names; each as :func:`default_tokenize` takes one.
        vocab_size: Of the tokenizer.
        text_field: Which field or column of the data sets holds the text.
        validation_fraction: The share of documents that is kept from training.
        workers: Processes that curate and encode; no part of the result.

    Returns:
        The tokenised data sets by their names.
    """
    corpora = {
        part: curated_corpus(
            part, [dataset], text_field=text_field, validation_fraction=validation_fraction, workers=workers
        )
        for part, dataset in datasets.items()
    }
    tokenizer = trained_tokenizer(name, [corpus / TRAIN for corpus in corpora.values()], vocab_size=vocab_size)
    return {
        part: tokenized_dataset(part, [corpus / TRAIN], [corpus / VALIDATION], tokenizer, workers=workers)
        for part, corpus in corpora.items()
    }


@step(name="defaults/train/{name}")
def default_train(
    name: str,
    tokens: StepRef | Mapping[str, StepRef],
    recipe: TrainRecipe | None = None,
    *,
    weights: Mapping[str, float] | None = None,
    validation: StepRef | None = None,
    layout: Layout | None = None,
    resources: ResourceConfig | None = None,
) -> StepRef:
    """Trains a language model on one tokenised data set, or on a mixture of several.

    Args:
        name: What the model is called: it comes to lie below ``checkpoints/{name}``.
        tokens: What :func:`default_tokenize` returned; several by their names, all of one tokenizer.
        recipe: How to train; another recipe is another model.
        weights: Of each data set of a mixture by its name; equal ones if none are given.
        validation: Whose held-out documents the training is watched on; of a mixture that of its first data set.
        layout: How to lie on the devices; no part of the result.
        resources: What to train on; no part of the result either.
    """
    datasets = dict(tokens) if isinstance(tokens, Mapping) else {name: tokens}
    if not datasets:
        raise ValueError("nothing to train on: tokens is empty")
    watched = next(iter(datasets.values())) if validation is None else validation
    shares = dict.fromkeys(datasets, 1.0) if weights is None else weights
    return _on(resources, trained_model)(
        name, mixture(datasets, shares), watched / VALIDATION, recipe or TrainRecipe(), layout=layout
    )


@step(name="defaults/eval/{name}")
def default_eval(
    name: str,
    model: StepRef,
    tokens: StepRef,
    *,
    prompts: Sequence[str] = ("",),
    layout: Layout | None = None,
    resources: ResourceConfig | None = None,
) -> dict[str, StepRef]:
    """Measures a model on the held-out documents of a data set, beside what counting bytes achieves, and lets it write.

    Args:
        name: What the evaluation is called.
        model: What :func:`default_train` returned.
        tokens: What :func:`default_tokenize` returned, of the model's tokenizer.
        prompts: Texts for the model to go on with.
        layout: How to lie on the devices; no part of the result.
        resources: What the model runs on; no part of the result either.

    Returns:
        ``evaluation``, ``baselines`` and ``samples``.
    """
    return {
        "evaluation": _on(resources, model_evaluation)(name, model, tokens / VALIDATION, layout=layout),
        "baselines": baseline_evaluation(name, tokens / TRAIN, tokens / VALIDATION, tokens),
        "samples": _on(resources, model_samples)(name, model, tokens, prompts),
    }


@step(name="defaults/speedrun/{name}")
def default_speedrun(
    name: str,
    tokens: StepRef,
    recipe: TrainRecipe,
    *,
    prompts: Sequence[str] = ("",),
    layout: Layout | None = None,
    train_on: ResourceConfig | None = None,
    measure_on: ResourceConfig | None = None,
) -> dict[str, StepRef]:
    """All from tokens to a page: trains, evaluates, exports and reports.

    Args:
        name: What model, evaluation and report are called.
        tokens: What :func:`default_tokenize` returned.
        recipe: How to train.
        prompts: Texts for the model to go on with.
        layout: How the training lies on the devices; no part of the result.
        train_on: What the training asks for; no part of the result either.
        measure_on: What evaluation and samples ask for: one machine.

    Returns:
        ``model``, ``evaluation``, ``baselines``, ``samples``, ``export`` and ``report``.
    """
    model = default_train(name, tokens, recipe, layout=layout, resources=train_on)
    # The samples and figures of a model that was trained on several machines are made on one.
    alone = None if layout is None else replace(layout, distributed=False)
    measured = default_eval(name, model, tokens, prompts=prompts, layout=alone, resources=measure_on)
    report = training_report(
        name, f"The model {name}", recipe=recipe, model=model, **measured, inputs={"tokens": tokens}
    )
    return {"model": model, **measured, "export": exported_model(name, model, tokens), "report": report}


def _on(resources: ResourceConfig | None, step_function: Any) -> Any:
    """A step that asks for something, if it is to: what a step runs on is never part of what it makes."""
    return step_function if resources is None else step_function.with_options(resources=resources)
