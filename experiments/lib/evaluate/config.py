"""What is evaluated and what comes out of it. Imports no JAX."""

from dataclasses import dataclass, field

from experiments.lib.train.config import Layout

__all__ = [
    "BaselineConfig",
    "BaselineEvaluation",
    "EvaluateConfig",
    "ModelEvaluation",
    "Sample",
    "SampleConfig",
    "Samples",
]


@dataclass(frozen=True)
class EvaluateConfig:
    """Which checkpoint to measure on which documents."""

    model_path: str
    """The output of a training."""

    step: int
    """Which of its checkpoints, such as ``TrainedModel.best_step``."""

    heldout_path: str
    """A token store that the model was not trained on."""

    batch_size: int = 16
    """Sequences at a time, over all devices. No part of the result, up to rounding."""

    layout: Layout = field(default_factory=Layout)


@dataclass(frozen=True)
class ModelEvaluation:
    """How well a model predicts documents, each on its own."""

    step: int
    documents: int
    bytes: int
    """Of the documents' texts, in UTF-8."""

    tokens: int
    """Predicted, end tokens included."""

    bits_per_byte: float
    """The documents' information in bits, by the model, divided by their bytes."""

    perplexity: float
    """Of a token: the exponential of the mean loss in nats. Depends on the tokenizer."""


@dataclass(frozen=True)
class BaselineConfig:
    """Which documents to count and which to predict from the counts."""

    train_path: str
    """A token store to count n-grams in."""

    heldout_path: str
    """A token store to predict."""

    tokenizer_path: str
    """The directory with the ``tokenizer.json`` that both were made with: turns tokens back into bytes."""

    order: int = 5
    """Of the n-grams: each byte is predicted from so many less one before it. From 2 to 7."""

    max_train_bytes: int = 16_000_000
    """Counting stops after the document that reaches it; bounds memory at some 50 bytes for each."""


@dataclass(frozen=True)
class BaselineEvaluation:
    """How well byte n-grams predict documents, each on its own."""

    order: int
    train_bytes: int
    """What was counted."""

    documents: int
    bytes: int
    unigram_bits_per_byte: float
    ngram_bits_per_byte: float


@dataclass(frozen=True)
class SampleConfig:
    """Which texts to go on with, and how."""

    model_path: str
    """The output of a training."""

    step: int
    """Which of its checkpoints."""

    tokenizer_path: str
    """The directory with the ``tokenizer.json`` that the model was trained with."""

    prompts: tuple[str, ...]
    """An empty one begins a new document."""

    max_new_tokens: int = 100
    temperature: float = 0.8
    """Divides the logits before one is drawn; 0 takes the most probable token."""

    seed: int = 0
    layout: Layout = field(default_factory=Layout)


@dataclass(frozen=True)
class Sample:
    """A text that a model went on with."""

    prompt: str
    continuation: str
    finished: bool
    """Whether the model ended the document itself."""


@dataclass(frozen=True)
class Samples:
    """What a model wrote."""

    step: int
    temperature: float
    seed: int
    samples: tuple[Sample, ...]
    """In the order of the prompts."""
