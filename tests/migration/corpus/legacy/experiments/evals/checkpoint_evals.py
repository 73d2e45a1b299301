"""Evaluates a run at several of its checkpoints, while it trains."""

from collections.abc import Iterable

from experiments.datasets.common import starcoder_tokenized
from experiments.defaults import CORE_TASKS, default_train
from experiments.llama import llama_nano
from marin.evaluation.evaluation import ComparisonConfig, EvaluationConfig, compare_evaluations, evaluate
from marin.execution.executor import ExecutorStep, InputName, executor_main, output_path_of, this_output_path, versioned
from marin.training.training import SimpleTrainConfig

run = default_train("watched", starcoder_tokenized, llama_nano, SimpleTrainConfig(8, 1000, 1e-3))


def checkpoint_of(run: ExecutorStep, step: int) -> InputName:
    return run.cd("hf") / f"step-{step}"


def evaluate_checkpoints(run: ExecutorStep, at: Iterable[int], *, max_instances: int | None = None) -> list[ExecutorStep]:
    """One evaluation for each checkpoint."""
    return [
        ExecutorStep(
            name=f"evaluation/watched/step-{step:06d}",
            fn=evaluate,
            config=EvaluationConfig(
                evaluator="lm_eval",
                model_name=f"watched-{step}",
                model_path=checkpoint_of(run, step).nonblocking(),  # does not wait
                evaluation_path=this_output_path(),
                evals=list(CORE_TASKS),
                max_eval_instances=versioned(max_instances),
            ),
        )
        for step in at
    ]


evals = evaluate_checkpoints(run, range(100, 301, 100))
final_eval, = evaluate_checkpoints(run, [1000], max_instances=10)
summary = ExecutorStep(
    name="evaluation/watched/summary",
    fn=compare_evaluations,
    config=ComparisonConfig(
        evaluations={f"{i}": output_path_of(e, "results.json") for i, e in enumerate(evals)},
        output_path=this_output_path("summary.json"),
    ),
)

if __name__ == "__main__":
    executor_main(steps=[run, *evals, final_eval, summary])
