"""What a speedrun reports."""

from dataclasses import dataclass

from marin.training.training import ModelConfig, SimpleTrainConfig
from marin.utilities.jobs import finish


@dataclass(frozen=True)
class Author:
    name: str
    affiliation: str
    url: str = ""


@dataclass(frozen=True)
class SpeedrunConfig:
    """One entry of the leaderboard."""

    author: Author
    description: str
    model_config: ModelConfig
    train_config: SimpleTrainConfig

    def flops(self) -> float:
        """A rough count of what the training computes."""
        model, train = self.model_config, self.train_config
        parameters = 12 * model.num_layers * model.hidden_dim**2
        return 6.0 * parameters * train.train_batch_size * train.num_train_steps * model.seq_len


@dataclass(frozen=True)
class SpeedrunResultsConfig:
    wandb_run_id: str
    speedrun_config: SpeedrunConfig
    checkpoint_path: str
    output_path: str


def speedrun_results(config: SpeedrunResultsConfig) -> None:
    """Writes the figures of a finished training for the leaderboard."""
    finish("speedrun_results", config)
