"""Evaluates a run at several of its checkpoints, while it trains."""

from collections.abc import Iterable

from experiments.datasets.common import starcoder_tokenized
from experiments.defaults import CORE_TASKS, default_train
from experiments.llama import llama_nano
from marin.evaluation.evaluation import ComparisonConfig, EvaluationConfig
from marin.evaluation.evaluation import compare_evaluations as _compare_evaluations
from marin.evaluation.evaluation import evaluate as _evaluate
from marin_trace import StepRef, deferred, executor_main, output, versioned
from marin_trace import step as marin_step
from marin.training.training import SimpleTrainConfig

evaluate = deferred(_evaluate)
compare_evaluations = deferred(_compare_evaluations)


@marin_step(name="evals/checkpoint_evals/run")
def run() -> StepRef:
    return default_train("watched", starcoder_tokenized(), llama_nano, SimpleTrainConfig(8, 1000, 1e-3))


def checkpoint_of(run: StepRef, step: int) -> StepRef:
    return run.cd("hf") / f"step-{step}"


def evaluate_checkpoints(run: StepRef, at: Iterable[int], *, max_instances: int | None = None) -> list[StepRef]:
    """One evaluation for each checkpoint."""

    @marin_step(name="evaluation/watched/step-{step:06d}")
    def evaluate_step(step) -> StepRef:
        return evaluate(EvaluationConfig(
            evaluator="lm_eval",
            model_name=f"watched-{step}",
            model_path=checkpoint_of(run, step).nonblocking(),  # does not wait
            evaluation_path=output(),
            evals=list(CORE_TASKS),
            max_eval_instances=versioned(max_instances),
        ))

    return [
        evaluate_step(step)
        for step in at
    ]


@marin_step(name="evals/checkpoint_evals/evals")
def evals() -> list[StepRef]:
    return evaluate_checkpoints(run(), range(100, 301, 100))


@marin_step(name="evaluation/watched/summary")
def summary() -> StepRef:
    return compare_evaluations(ComparisonConfig(
        evaluations={f"{i}": e / "results.json" for i, e in enumerate(evals())},
        output_path=output() / "summary.json",
    ))


@marin_step(name="evals/checkpoint_evals/all")
def run_checkpoint_evals():
    """Entry step of evals/checkpoint_evals."""
    evaluate_checkpoints(run(), [1000], max_instances=10)
    run()
    evals()
    summary()


if __name__ == "__main__":
    executor_main(steps=[run_checkpoint_evals()])
