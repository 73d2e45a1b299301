"""The step that trains a language model."""

from experiments.lib.mixture import MixtureConfig
from experiments.lib.train.config import Layout, TrainConfig, TrainRecipe
from experiments.lib.train.train import train_model as _train_model
from marin_trace import StepRef, deferred, output, step, unversioned

train_model = deferred(_train_model)


@step(name="checkpoints/{name}")
def trained_model(
    name: str,
    mixture: MixtureConfig,
    validation: StepRef,
    recipe: TrainRecipe,
    *,
    layout: Layout | None = None,
) -> StepRef:
    """A language model; artifact: `TrainedModel`.

    An attempt goes on from the last checkpoint that an earlier one left.

    Args:
        name: Of the model.
        mixture: What to train on, see :func:`experiments.steps.tokenize.mixture`.
        validation: A token store of held-out documents.
        recipe: How to train.
        layout: How to lie on the devices. Another layout finds the same model.
    """
    return train_model(
        TrainConfig(
            recipe=recipe,
            mixture=mixture,
            validation_path=validation,
            output_path=output(),
            layout=unversioned(layout or Layout()),
        )
    )
