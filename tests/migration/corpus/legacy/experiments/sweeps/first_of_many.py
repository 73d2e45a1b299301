"""A sweep, and a closer look at its first run."""

from experiments.datasets.common import starcoder_tokenized
from experiments.defaults import default_eval, default_train
from experiments.llama import llama_nano
from experiments.paloma import paloma_tokenized as validation_steps
from marin.evaluation.evaluation import ComparisonConfig, compare_evaluations
from marin.execution.executor import ExecutorStep, executor_main, output_path_of, this_output_path
from marin.training.training import SimpleTrainConfig

LEARNING_RATES = [1e-3, 2e-3, 4e-3]


def run_for(lr: float, data: ExecutorStep = starcoder_tokenized) -> ExecutorStep:
    return default_train(f"sweep-lr{lr}", data, llama_nano, SimpleTrainConfig(8, 10, lr))


runs = [run_for(lr) for lr in LEARNING_RATES]

closer = ExecutorStep(
    name="sweep/closer",
    fn=compare_evaluations,
    config=ComparisonConfig(
        evaluations={"log": output_path_of(runs[0], "log"), **validation_steps()},
        output_path=this_output_path(),
    ),
)
evals = [default_eval(run) for run in runs]

if __name__ == "__main__":
    executor_main(steps=[*runs, closer, *evals])
