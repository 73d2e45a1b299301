"""A small chat model in three stages: pretraining, midtraining, fine-tuning."""

import dataclasses
from dataclasses import dataclass

from experiments.datasets.mixtures import nemotron_mixture
from experiments.defaults import default_tokenize, default_train
from experiments.llama import llama3_instruct_tokenizer, llama_350m
from experiments.posttrain.instruction_datasets import conversation_to_documents, get_instruction_dataset
from marin_trace import StepRef, executor_main, step
from marin.processing.tokenize.data_configs import lm_mixture_data_config
from marin.training.training import SimpleTrainConfig


@dataclass(frozen=True)
class Stage:
    """One stage of the training."""

    name: str
    tokens: int
    learning_rate: float
    batch_size: int = 512

    @property
    def num_steps(self) -> int:
        return self.tokens // (self.batch_size * llama_350m.seq_len)


PRETRAIN = Stage("pretrain", 11_200_000_000, 2e-3)
MIDTRAIN = Stage("midtrain", 500_000_000, 1e-3)
SFT = Stage("sft", 80_000_000, 1e-4, batch_size=64)


def stage_train_config(stage: Stage, previous: StepRef | None = None) -> SimpleTrainConfig:
    """How a stage trains, from where the one before has ended."""
    config = SimpleTrainConfig(
        train_batch_size=stage.batch_size,
        num_train_steps=stage.num_steps,
        learning_rate=stage.learning_rate,
    )
    if previous is not None:
        config = dataclasses.replace(config, initialize_from_checkpoint_path=previous)
    return config


def train_stage(stage: Stage, tokenized, previous: StepRef | None = None) -> StepRef:
    """One stage."""
    checkpoint = None
    if previous is not None:
        checkpoint = previous / "checkpoints"
    return default_train(
        f"nanochat-{stage.name}", tokenized, llama_350m, stage_train_config(stage, checkpoint), tags=["nanochat"]
    )


@step(name="exp1775_nanochat_three_stage/all")
def run_exp1775_nanochat_three_stage():
    """nanochat in three stages."""
    midtrain_components = {
        name: default_tokenize(f"nanochat/{name}", conversation_to_documents(dataset), llama3_instruct_tokenizer)
        for name, dataset in {"metamath": "meta-math/MetaMathQA", "tulu": "allenai/tulu-v2"}.items()
    }
    midtrain_mixture = lm_mixture_data_config(
        midtrain_components,
        dict.fromkeys(midtrain_components, 1.0),
        tokenizer=llama3_instruct_tokenizer,
    )
    sft_data = default_tokenize("nanochat/sft", get_instruction_dataset("sherryy/tulu-3"), llama3_instruct_tokenizer)

    pretrained = train_stage(PRETRAIN, nemotron_mixture())
    midtrained = train_stage(MIDTRAIN, midtrain_mixture, pretrained)
    train_stage(SFT, sft_data, midtrained)


if __name__ == "__main__":
    executor_main(steps=[run_exp1775_nanochat_three_stage()], description="nanochat in three stages")
