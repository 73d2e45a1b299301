"""Steps that measure a trained model, and what it has to beat."""

from collections.abc import Sequence

from experiments.lib.evaluate.baselines import evaluate_baselines as _evaluate_baselines
from experiments.lib.evaluate.config import BaselineConfig, EvaluateConfig, SampleConfig
from experiments.lib.evaluate.model import evaluate_model as _evaluate_model
from experiments.lib.evaluate.sample import sample_continuations as _sample_continuations
from experiments.lib.train.config import Layout
from marin_trace import StepRef, deferred, step, unversioned

evaluate_model = deferred(_evaluate_model)
evaluate_baselines = deferred(_evaluate_baselines)
sample_continuations = deferred(_sample_continuations)


@step(name="evaluations/{name}")
def model_evaluation(name: str, model: StepRef, heldout: StepRef, *, layout: Layout | None = None) -> StepRef:
    """Bits per byte and perplexity of a model's best checkpoint on a token store; artifact: `ModelEvaluation`."""
    return evaluate_model(
        EvaluateConfig(
            model_path=model,
            step=model.artifact.best_step,
            heldout_path=heldout,
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
