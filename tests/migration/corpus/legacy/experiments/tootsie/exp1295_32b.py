"""The 32B run, and the evaluation of its exports while it goes on."""

from experiments.datasets.mixtures import nemotron_mixture
from experiments.defaults import CORE_TASKS, default_train
from experiments.llama import llama_32b
from marin.evaluation.evaluation import EvaluationConfig, evaluate
from marin.execution.executor import ExecutorStep, executor_main, this_output_path, versioned
from marin.training.training import SimpleTrainConfig, TpuSlice

llama_32b_tootsie = default_train(
    name="llama-32b-tootsie-2",
    tokenized=nemotron_mixture,
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

checkpoint_evals = {
    step: ExecutorStep(
        name=f"evaluation/llama-32b-tootsie/step-{step}",
        fn=evaluate,
        config=EvaluationConfig(
            evaluator="levanter_lm_evaluation_harness",
            model_name=f"llama-32b-step-{step}",
            model_path=(llama_32b_tootsie / "hf" / f"step-{step}").nonblocking(),
            evaluation_path=this_output_path(),
            evals=list(CORE_TASKS),
            max_eval_instances=versioned(1_000),
        ),
    )
    for step in STEPS_TO_EVALUATE
}

if __name__ == "__main__":
    executor_main(
        steps=[llama_32b_tootsie, *checkpoint_evals.values()],
        description="32B on Nemotron, watched from outside.",
    )
