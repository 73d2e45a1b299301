"""The 32B run, and the evaluation of its exports while it goes on."""

from experiments.datasets.mixtures import nemotron_mixture
from experiments.defaults import CORE_TASKS, default_train
from experiments.llama import llama_32b
from marin.evaluation.evaluation import EvaluationConfig
from marin.evaluation.evaluation import evaluate as _evaluate
from marin_trace import StepRef, deferred, executor_main, output, versioned
from marin_trace import step as marin_step
from marin.training.training import SimpleTrainConfig, TpuSlice

evaluate = deferred(_evaluate)


@marin_step(name="tootsie/exp1295_32b/llama_32b_tootsie")
def llama_32b_tootsie() -> StepRef:
    return default_train(
        name="llama-32b-tootsie-2",
        tokenized=nemotron_mixture(),
        model_config=llama_32b,
        train_config=SimpleTrainConfig(
            resources=TpuSlice("v4-2048"),
            train_batch_size=8192,
            num_train_steps=1_000_000,
            learning_rate=7e-4,
            warmup=0.01,
        ),
        tags=["llama", "32b", "tootsie"],
        eval_harness_tasks=(),
    ).with_output_path("checkpoints/llama-32b-tootsie-2-fixed")


STEPS_TO_EVALUATE = [10_000, 20_000, 40_000]


@marin_step(name="evaluation/llama-32b-tootsie/step-{step}")
def evaluate_step(step) -> StepRef:
    return evaluate(EvaluationConfig(
        evaluator="levanter_lm_evaluation_harness",
        model_name=f"llama-32b-step-{step}",
        model_path=(llama_32b_tootsie() / "hf" / f"step-{step}").nonblocking(),
        evaluation_path=output(),
        evals=list(CORE_TASKS),
        max_eval_instances=versioned(1_000),
    ))


@marin_step(name="tootsie/exp1295_32b/all")
def run_exp1295_32b():
    """32B on Nemotron, watched from outside."""
    for step in STEPS_TO_EVALUATE:
        evaluate_step(step)
    llama_32b_tootsie()


if __name__ == "__main__":
    executor_main(
        steps=[run_exp1295_32b()],
        description="32B on Nemotron, watched from outside.",
    )
