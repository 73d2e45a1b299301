"""How do three older models compare? They lie where nobody trains any more."""

from experiments.defaults import CORE_TASKS
from marin.evaluation.evaluation import ComparisonConfig, EvaluationConfig, evaluate, compare_evaluations
from marin.execution.executor import ExecutorStep, InputName, executor_main, this_output_path

MODELS = {
    "olmo-7b": "gs://marin-us-central2/models/olmo-7b",
    "amber-7b": "gs://marin-us-central2/models/amber-7b",
    "llama-2-7b": "models/llama-2-7b",
}


def evaluate_model(model_name: str, path: InputName) -> ExecutorStep:
    name = f"evaluation/lm_eval/{model_name}"
    if model_name.startswith("llama"):
        name += "-gated"
    return ExecutorStep(
        name=name,
        fn=evaluate,
        config=EvaluationConfig(
            evaluator="lm_evaluation_harness",
            model_name=model_name,
            model_path=path,
            evaluation_path=this_output_path(),
            evals=[*CORE_TASKS],
        ),
        pip_dependency_groups=["eval"],
    )


evaluations = {name: evaluate_model(name, InputName.hardcoded(path)) for name, path in MODELS.items()}

comparison = ExecutorStep(
    name="evaluation/lm_eval/comparison",
    fn=compare_evaluations,
    config=ComparisonConfig(evaluations=evaluations, output_path=this_output_path()),
)

if __name__ == "__main__":
    executor_main(steps=[comparison], description="Compare three older models")
