"""Preferences on top of a model of the Hub."""

from experiments.defaults import default_dpo, default_eval, default_tokenize
from experiments.llama import llama3_instruct_tokenizer
from experiments.posttrain.preference_datasets import ultrafeedback
from marin.execution.executor import InputName, executor_main

REFERENCE = InputName(step=None, name="gcsfuse_mount/models/marin-8b-instruct")

tokenized_preferences = default_tokenize("ultrafeedback-llama3", ultrafeedback, llama3_instruct_tokenizer)

BETAS = (0.01, 0.1)

dpo_runs = {}
for beta in BETAS:
    dpo_runs[beta] = default_dpo(f"dpo-marin-8b-beta{beta}", tokenized_preferences, REFERENCE, beta=beta)

dpo_evals = [default_eval(run) for run in dpo_runs.values()]

if __name__ == "__main__":
    executor_main(steps=list(dpo_runs.values()) + dpo_evals, description="DPO with two betas")
