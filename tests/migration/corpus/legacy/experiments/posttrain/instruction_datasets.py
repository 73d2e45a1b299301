"""Instruction data sets: downloaded, brought into one format, and as documents for pretraining."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from marin.download.huggingface.download_hf import DownloadConfig, download_hf
from marin.execution.executor import ExecutorStep, output_path_of, this_output_path, versioned
from marin.transform.conversation.conversation_to_dolma import ConversationToDolmaConfig, convert_conversation_to_dolma
from marin.transform.conversation.transform_conversation import TransformConversationConfig, transform_conversation


@dataclass(frozen=True)
class InstructionDatasetConfig:
    """One data set of the Hub."""

    hf_dataset_id: str
    revision: str
    adapter: str
    subsets: Sequence[str] = field(default_factory=list)
    splits: Sequence[str] = ("train",)

    @property
    def simple_name(self) -> str:
        return self.hf_dataset_id.replace("/", "--")


INSTRUCTION_DATASET_NAME_TO_CONFIG = {
    "meta-math/MetaMathQA": InstructionDatasetConfig("meta-math/MetaMathQA", "aa4f34d", "instruction_response"),
    "allenai/tulu-v2": InstructionDatasetConfig(
        hf_dataset_id="allenai/tulu-v2",
        revision="6248b17",
        adapter="single_column",
        subsets=["default"],
    ),
    "sherryy/tulu-3": InstructionDatasetConfig("sherryy/tulu-3", "f901a2a", "single_column"),
}


def download_dataset_step(dataset: InstructionDatasetConfig) -> ExecutorStep:
    """Downloads a data set at its revision."""
    dataset_name = dataset.simple_name
    return ExecutorStep(
        name=f"raw/{dataset_name}",
        fn=download_hf,
        config=DownloadConfig(
            hf_dataset_id=versioned(dataset.hf_dataset_id),
            revision=versioned(dataset.revision),
            gcs_output_path=this_output_path(),
        ),
        override_output_path=f"raw/{dataset_name}-{dataset.revision}",
    )


def transform_dataset_step(dataset_cfg: InstructionDatasetConfig, download_step: ExecutorStep) -> ExecutorStep:
    """Brings a data set into the format that all have."""
    return ExecutorStep(
        name=f"documents/{dataset_cfg.simple_name}",
        fn=transform_conversation,
        config=TransformConversationConfig(
            input_path=output_path_of(download_step, "data"),
            output_path=this_output_path(),
            adapter=versioned(dataset_cfg.adapter),
            subsets=versioned(list(dataset_cfg.subsets)),
            splits=versioned(list(dataset_cfg.splits)),
        ),
    )


def get_instruction_dataset(hf_dataset_id: str, splits: Sequence[str] | None = None) -> ExecutorStep:
    """A data set by its name on the Hub, ready for fine-tuning."""
    assert hf_dataset_id in INSTRUCTION_DATASET_NAME_TO_CONFIG, f"Unknown instruction dataset: {hf_dataset_id}"
    original_config = INSTRUCTION_DATASET_NAME_TO_CONFIG[hf_dataset_id]
    config = InstructionDatasetConfig(
        **{**original_config.__dict__, "splits": original_config.splits if splits is None else splits}
    )
    return transform_dataset_step(config, download_dataset_step(config))


def conversation_to_documents(hf_dataset_id: str) -> ExecutorStep:
    """A data set as documents to pretrain on."""
    short = hf_dataset_id.rpartition("/")[2]
    conversations = get_instruction_dataset(hf_dataset_id)
    return ExecutorStep(
        name=f"documents/{short}-dolma",
        fn=convert_conversation_to_dolma,
        config=ConversationToDolmaConfig(conversations),
    )
