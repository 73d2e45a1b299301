"""Fine-tuning of the 32B, on several data sets."""

import os

from experiments.defaults import default_tokenize, default_train
from experiments.llama import llama3_instruct_tokenizer, llama_32b
from experiments.posttrain.instruction_datasets import INSTRUCTION_DATASET_NAME_TO_CONFIG, get_instruction_dataset
from experiments.tootsie.exp1295_32b import llama_32b_tootsie
from marin_trace import StepRef, executor_main, step
from marin.processing.tokenize.data_configs import lm_mixture_data_config
from marin.training.training import SimpleTrainConfig


def create_tokenization_step(dataset_name: str) -> StepRef:
    """Tokenizes one of the instruction data sets."""
    dataset = get_instruction_dataset(dataset_name, splits=["train"])
    return default_tokenize(
        name=os.path.join("sft", dataset_name.replace("/", "_")),
        dataset=dataset / "train",
        tokenizer=llama3_instruct_tokenizer,
    )


@step(name="exp1994_32b_sft/all")
def run_exp1994_32b_sft():
    """SFT of the 32B."""
    tokenized_datasets = {name: create_tokenization_step(name) for name in INSTRUCTION_DATASET_NAME_TO_CONFIG}

    sft_mixture = lm_mixture_data_config(
        tokenized_datasets,
        {name: 1.0 / len(tokenized_datasets) for name in tokenized_datasets},
        shuffle=1_000_000,
    )

    default_train(
        name="marin-32b-sft",
        tokenized=sft_mixture,
        model_config=llama_32b,
        train_config=SimpleTrainConfig(
            train_batch_size=128,
            num_train_steps=5_000,
            learning_rate=1e-5,
            initialize_from_checkpoint_path=llama_32b_tootsie() / "checkpoints/step-160000",
        ),
    )


if __name__ == "__main__":
    executor_main([run_exp1994_32b_sft()], description="SFT of the 32B")
