"""A sweep, and a closer look at its first run."""

from experiments.datasets.common import starcoder_tokenized
from experiments.defaults import default_eval, default_train
from experiments.llama import llama_nano
from experiments.paloma import paloma_tokenized as validation_steps
from marin.evaluation.evaluation import ComparisonConfig
from marin.evaluation.evaluation import compare_evaluations as _compare_evaluations
from marin_trace import StepRef, deferred, executor_main, output, step
from marin.training.training import SimpleTrainConfig

compare_evaluations = deferred(_compare_evaluations)

LEARNING_RATES = [1e-3, 2e-3, 4e-3]


def run_for(lr: float, data: StepRef | None = None) -> StepRef:
    if data is None:
        data = starcoder_tokenized()
    return default_train(f"sweep-lr{lr}", data, llama_nano, SimpleTrainConfig(8, 10, lr))


runs = [lambda lr=lr: run_for(lr) for lr in LEARNING_RATES]


@step(name="sweep/closer")
def closer() -> StepRef:
    return compare_evaluations(ComparisonConfig(
        evaluations={"log": runs[0]() / "log", **validation_steps()},
        output_path=output(),
    ))


@step(name="sweeps/first_of_many/all")
def run_first_of_many():
    """Entry step of sweeps/first_of_many."""
    for run in [make() for make in runs]:
        default_eval(run)
    for make in runs:
        make()
    closer()


if __name__ == "__main__":
    executor_main(steps=[run_first_of_many()])
