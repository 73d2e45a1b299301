"""Trains a language model. Imports JAX when it is called, not before."""

from experiments.lib.train.config import TrainConfig, TrainedModel

__all__ = ["train_model"]


def train_model(config: TrainConfig) -> TrainedModel:
    """Trains to the recipe's last step, from the last checkpoint below the output path or from the start.

    Writes checkpoints, ``metrics.jsonl`` and ``model.json``. Of several processes each calls this with the same
    configuration.

    Raises:
        ValueError: Stores, recipe and devices do not fit each other; nothing was computed yet.
        TrainingDivergedError: The loss is no longer a number.
        DamagedCheckpointError: There are checkpoints, and none can be read.
    """
    from experiments.lib.train.loop import run_training

    return run_training(config)
