"""What a training is given and what it returns. Imports no JAX, so that finished trainings can be looked at without."""

from dataclasses import dataclass, field
from typing import Literal

from experiments.lib.llama.config import LlamaConfig
from experiments.lib.mixture import MixtureConfig

__all__ = [
    "CheckpointPolicy",
    "Layout",
    "OptimizerConfig",
    "TrainConfig",
    "TrainRecipe",
    "TrainedModel",
    "TrainingDivergedError",
]


@dataclass(frozen=True)
class OptimizerConfig:
    """AdamW (Loshchilov & Hutter 2019), its learning rate warmed up linearly and decayed along a cosine."""

    learning_rate: float = 4e-3
    """The peak, reached at the end of the warm-up."""

    warmup_steps: int = 50
    final_fraction: float = 0.1
    """What is left of the peak at the last step."""

    beta1: float = 0.9
    beta2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.1
    """Of matrices only; norms are left alone. Multiplied with the learning rate."""

    clip_norm: float = 1.0
    """Gradients whose norm over all parameters is larger are scaled down to it."""


@dataclass(frozen=True)
class CheckpointPolicy:
    """When the state is saved and which states are kept."""

    every_steps: int = 200
    """Also after the last step."""

    keep_last: int = 2
    """The best one is kept besides."""


@dataclass(frozen=True)
class TrainRecipe:
    """What makes a training the one it is, its data aside: another value is another model.

    The length is in steps. A number of minutes would make the model depend on the machine; how many steps a machine
    does in a minute is for :mod:`experiments.lib.train.budget` to measure, before the recipe is written.

    Raises:
        ValueError: A value is out of range.
    """

    model: LlamaConfig = field(default_factory=LlamaConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    checkpoints: CheckpointPolicy = field(default_factory=CheckpointPolicy)
    steps: int = 800
    batch_size: int = 8
    """Sequences in one step, over all devices."""

    sequence_length: int = 256
    """Tokens that are predicted in each sequence. Documents follow one another in it, separated by the end token."""

    compute_dtype: Literal["bfloat16", "float32"] = "bfloat16"
    """What the layers compute in. Parameters, gradients, optimiser and losses are float32 always."""

    validation_sequences: int = 64
    """How many held-out sequences the validation loss is the mean of, taken at equal distances."""

    log_every: int = 10
    """Steps from one line of metrics to the next."""

    seed: int = 0
    """Of the initial parameters and of the data order."""

    def __post_init__(self) -> None:
        counts = {
            "steps": self.steps,
            "batch_size": self.batch_size,
            "sequence_length": self.sequence_length,
            "validation_sequences": self.validation_sequences,
            "log_every": self.log_every,
            "checkpoints.every_steps": self.checkpoints.every_steps,
            "checkpoints.keep_last": self.checkpoints.keep_last,
        }
        if wrong := [f"{name}={value}" for name, value in counts.items() if value < 1]:
            raise ValueError(f"a training needs at least 1 of each, not {', '.join(wrong)}")
        if self.compute_dtype not in ("bfloat16", "float32"):
            raise ValueError(f"compute_dtype is 'bfloat16' or 'float32', not {self.compute_dtype!r}")
        if self.seed < 0:
            raise ValueError(f"seed must not be negative, like {self.seed}")


@dataclass(frozen=True)
class Layout:
    """How a training lies on devices. The same model comes out, up to rounding: no part of its identity."""

    fsdp: int = 1
    """Over how many devices each parameter is split; 0 means all. The devices form a mesh of (all / fsdp) by fsdp, and
    a batch is split over all of them."""

    gradient_accumulation: int = 1
    """Each batch is taken in so many parts, one after the other: less memory for the same step."""

    recompute_layers: bool = False
    """Compute the layers once more in the backward pass and do not store what lies within them."""

    distributed: bool = False
    """Several processes work on it, as on the hosts of a TPU slice: connect them before the first computation."""


@dataclass(frozen=True)
class TrainConfig:
    """What to train on what, and where to."""

    recipe: TrainRecipe
    mixture: MixtureConfig
    """What to train on."""

    validation_path: str
    """A token store of held-out documents."""

    output_path: str
    """The directory of checkpoints and metrics; one that an earlier attempt left is taken up."""

    layout: Layout = field(default_factory=Layout)


@dataclass(frozen=True)
class TrainedModel:
    """A finished training."""

    steps: int
    tokens: int
    """Predicted in training, over all steps."""

    epochs: float
    """Over all sources: sequences drawn for each one that there is."""

    parameters: int
    vocab_size: int
    final_loss: float
    """Of the last step, in nats per token."""

    best_step: int
    """The kept checkpoint with the lowest validation loss."""

    best_validation_loss: float
    """In nats per token."""

    final_validation_loss: float
    tokens_per_second: float
    """Median over the logged steps."""


class TrainingDivergedError(ArithmeticError):
    """A loss or a gradient is no longer a finite number; the message says since when and what to change."""
