"""How do three older models compare? They lie where nobody trains any more."""

from experiments.defaults import CORE_TASKS
from marin.evaluation.evaluation import ComparisonConfig, EvaluationConfig
from marin.evaluation.evaluation import evaluate as _evaluate
from marin.evaluation.evaluation import compare_evaluations as _compare_evaluations
from marin_trace import StepRef, deferred, executor_main, output, step

evaluate = deferred(_evaluate)
compare_evaluations = deferred(_compare_evaluations)

MODELS = {
    "olmo-7b": "gs://marin-us-central2/models/olmo-7b",
    "amber-7b": "gs://marin-us-central2/models/amber-7b",
    "llama-2-7b": "models/llama-2-7b",
}


def evaluate_model(model_name: str, path: StepRef) -> StepRef:
    name = f"evaluation/lm_eval/{model_name}"
    if model_name.startswith("llama"):
        name += "-gated"

    @step(name=name, pip_dependency_groups=["eval"])
    def evaluate_step() -> StepRef:
        return evaluate(EvaluationConfig(
            evaluator="lm_evaluation_harness",
            model_name=model_name,
            model_path=path,
            evaluation_path=output(),
            evals=[*CORE_TASKS],
        ))

    return evaluate_step()


@step(name="evals/exp446_checkpoints/evaluations")
def evaluations() -> dict[str, StepRef]:
    return {name: evaluate_model(name, StepRef.hardcoded(path)) for name, path in MODELS.items()}


@step(name="evaluation/lm_eval/comparison")
def comparison() -> StepRef:
    return compare_evaluations(ComparisonConfig(evaluations=evaluations(), output_path=output()))


if __name__ == "__main__":
    executor_main(steps=[comparison()], description="Compare three older models")
