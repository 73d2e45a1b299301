"""Steps that turn a corpus into tokens: train a tokenizer, tokenise; and mixtures of what they make."""

from collections.abc import Mapping, Sequence

from experiments.lib.mixture import MixtureConfig
from experiments.lib.splits import TRAIN
from experiments.lib.tokenize import TokenizeConfig
from experiments.lib.tokenize import tokenize as _tokenize
from experiments.lib.tokenizer import END_OF_DOCUMENT, TrainTokenizerConfig
from experiments.lib.tokenizer import train_tokenizer as _train_tokenizer
from marin_trace import StepRef, deferred, output, step, unversioned

train_tokenizer = deferred(_train_tokenizer)
tokenize = deferred(_tokenize)


@step(name="tokenizers/{name}")
def trained_tokenizer(
    name: str, inputs: Sequence[StepRef], *, vocab_size: int = 4096, text_field: str = "text"
) -> StepRef:
    """A byte-level BPE trained on the records of some paths; artifact: `TrainedTokenizer`."""
    return train_tokenizer(
        TrainTokenizerConfig(
            input_paths=tuple(inputs), output_path=output(), vocab_size=vocab_size, text_field=text_field
        )
    )


@step(name="tokenized/{name}")
def tokenized_dataset(
    name: str,
    train: Sequence[StepRef],
    validation: Sequence[StepRef],
    tokenizer: StepRef,
    *,
    text_field: str = "text",
    end_of_document: str = END_OF_DOCUMENT,
    workers: int = 1,
) -> StepRef:
    """Token stores of the records of some paths, below `train` and `validation`; artifact: `TokenizedDataset`."""
    return tokenize(
        TokenizeConfig(
            train_paths=tuple(train),
            validation_paths=tuple(validation),
            tokenizer=tokenizer,
            output_path=output(),
            text_field=text_field,
            end_of_document=end_of_document,
            # The stores are byte-identical for any number of workers.
            workers=unversioned(workers),
        )
    )


def mixture(datasets: Mapping[str, StepRef], weights: Mapping[str, float]) -> MixtureConfig:
    """What training is given of several tokenised data sets, for a field of its config.

    No step: weights are a setting of the training, and other weights tokenise nothing again.

    Args:
        datasets: Outputs of :func:`tokenized_dataset`, all with one tokenizer.
        weights: Of each by its name; only their ratios count.

    Raises:
        ValueError: A data set has no weight, or a weight is not a positive number.

    Example:
        >>> code, prose = StepRef.hardcoded("/tokens/code"), StepRef.hardcoded("/tokens/prose")
        >>> mixture({"code": code, "prose": prose}, {"code": 3, "prose": 1}).weights
        {'code': 3, 'prose': 1}
    """
    return MixtureConfig(
        paths={name: dataset / TRAIN for name, dataset in datasets.items()},
        weights=dict(weights),
    )
