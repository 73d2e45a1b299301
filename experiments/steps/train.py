"""The step that trains a language model."""

from collections.abc import Sequence

from experiments.lib.train.config import Layout, TokenSource, TrainConfig, TrainRecipe
from experiments.lib.train.train import train_model as _train_model
from marin_trace import StepRef, deferred, output, step, unversioned

train_model = deferred(_train_model)


@step(name="checkpoints/{name}")
def trained_model(
    name: str,
    sources: Sequence[tuple[StepRef, float]],
    validation: StepRef,
    recipe: TrainRecipe,
    *,
    layout: Layout | None = None,
) -> StepRef:
    """A language model; artifact: `TrainedModel`.

    An attempt goes on from the last checkpoint that an earlier one left.

    Args:
        name: Of the model.
        sources: Token stores to train on, each with its weight.
        validation: A token store of held-out documents.
        recipe: How to train.
        layout: How to lie on the devices. Another layout finds the same model.
    """
    return train_model(
        TrainConfig(
            recipe=recipe,
            sources=tuple(TokenSource(path=store, weight=weight) for store, weight in sources),
            validation_path=validation,
            output_path=output(),
            layout=unversioned(layout or Layout()),
        )
    )
