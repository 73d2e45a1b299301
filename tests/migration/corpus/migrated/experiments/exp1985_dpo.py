"""Preferences on top of a model of the Hub."""

from experiments.defaults import default_dpo, default_eval, default_tokenize
from experiments.llama import llama3_instruct_tokenizer
from experiments.posttrain.preference_datasets import ultrafeedback
from marin_trace import StepRef, executor_main, step

REFERENCE = StepRef.hardcoded("gcsfuse_mount/models/marin-8b-instruct")

BETAS = (0.01, 0.1)


@step(name="exp1985_dpo/all")
def run_exp1985_dpo():
    """DPO with two betas."""
    tokenized_preferences = default_tokenize("ultrafeedback-llama3", ultrafeedback(), llama3_instruct_tokenizer)

    dpo_runs = {}
    for beta in BETAS:
        dpo_runs[beta] = default_dpo(f"dpo-marin-8b-beta{beta}", tokenized_preferences, REFERENCE, beta=beta)

    for run in dpo_runs.values():
        default_eval(run)


if __name__ == "__main__":
    executor_main(steps=[run_exp1985_dpo()], description="DPO with two betas")
