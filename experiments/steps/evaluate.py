"""Steps that measure a trained model, and what it has to beat."""

from collections.abc import Sequence

from experiments.lib.evaluate.baselines import evaluate_baselines as _evaluate_baselines
from experiments.lib.evaluate.config import BaselineConfig, EvaluateConfig, SampleConfig
from experiments.lib.evaluate.model import evaluate_model as _evaluate_model
from experiments.lib.evaluate.sample import sample_continuations as _sample_continuations
from experiments.lib.evaluate.watch import WatchConfig
from experiments.lib.evaluate.watch import watch_checkpoints as _watch_checkpoints
from experiments.lib.train.config import Layout, TrainRecipe
from marin_trace import StepRef, deferred, output, step, unversioned

evaluate_model = deferred(_evaluate_model)
evaluate_baselines = deferred(_evaluate_baselines)
sample_continuations = deferred(_sample_continuations)
watch_checkpoints = deferred(_watch_checkpoints)


@step(name="evaluations/{name}")
def model_evaluation(
    name: str, model: StepRef, heldout: StepRef, *, last: bool = False, layout: Layout | None = None
) -> StepRef:
    """Bits per byte and perplexity of a model's best checkpoint on a token store; artifact: `ModelEvaluation`.

    Args:
        name: Of the evaluation.
        model: The trained model.
        heldout: The documents to predict.
        last: Take the last checkpoint: the best one was chosen by the validation documents, which may favour it.
        layout: How to lie on the devices; no part of the result.
    """
    return evaluate_model(
        EvaluateConfig(
            model_path=model,
            step=model.artifact.steps if last else model.artifact.best_step,
            heldout_path=heldout,
            layout=unversioned(layout or Layout()),
        )
    )


@step(name="watched/{name}")
def watched_training(
    name: str,
    model: StepRef,
    recipe: TrainRecipe,
    heldout: StepRef,
    *,
    patience_s: float = 600.0,
    layout: Layout | None = None,
) -> StepRef:
    """The figures of every checkpoint of a training, taken while it runs; artifact: `WatchedTraining`.

    Args:
        name: Of the evaluation.
        model: A training, which this step does not wait for.
        recipe: Of the training: says with which step it ends.
        heldout: The documents to predict.
        patience_s: Seconds without a new checkpoint after which this step fails.
        layout: How to lie on the devices; no part of the result.
    """
    return watch_checkpoints(
        WatchConfig(
            model_path=model.nonblocking(),
            last_step=recipe.steps,
            heldout_path=heldout,
            output_path=output(),
            patience_s=unversioned(patience_s),
            layout=unversioned(layout or Layout()),
        )
    )


@step(name="baselines/{name}")
def baseline_evaluation(name: str, train: StepRef, heldout: StepRef, tokenizer: StepRef, *, order: int = 5) -> StepRef:
    """Bits per byte of models that count bytes of one token store, on another; artifact: `BaselineEvaluation`."""
    return evaluate_baselines(
        BaselineConfig(train_path=train, heldout_path=heldout, tokenizer_path=tokenizer, order=order)
    )


@step(name="samples/{name}")
def model_samples(
    name: str,
    model: StepRef,
    tokenizer: StepRef,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 100,
    temperature: float = 0.8,
    seed: int = 0,
) -> StepRef:
    """What a model's best checkpoint makes of some prompts; artifact: `Samples`."""
    return sample_continuations(
        SampleConfig(
            model_path=model,
            step=model.artifact.best_step,
            tokenizer_path=tokenizer,
            prompts=tuple(prompts),
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed,
        )
    )
