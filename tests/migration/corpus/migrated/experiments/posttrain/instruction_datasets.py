"""Instruction data sets: downloaded, brought into one format, and as documents for pretraining."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from marin.download.huggingface.download_hf import DownloadConfig
from marin.download.huggingface.download_hf import download_hf as _download_hf
from marin_trace import StepRef, deferred, output, step, versioned
from marin.transform.conversation.conversation_to_dolma import ConversationToDolmaConfig
from marin.transform.conversation.conversation_to_dolma import convert_conversation_to_dolma as _convert_conversation_to_dolma
from marin.transform.conversation.transform_conversation import TransformConversationConfig
from marin.transform.conversation.transform_conversation import transform_conversation as _transform_conversation

download_hf = deferred(_download_hf)
transform_conversation = deferred(_transform_conversation)
convert_conversation_to_dolma = deferred(_convert_conversation_to_dolma)


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


def download_dataset_step(dataset: InstructionDatasetConfig) -> StepRef:
    """Downloads a data set at its revision."""
    dataset_name = dataset.simple_name

    @step(name=f"raw/{dataset_name}", override_output_path=f"raw/{dataset_name}-{dataset.revision}")
    def download_hf_step() -> StepRef:
        return download_hf(DownloadConfig(
            hf_dataset_id=versioned(dataset.hf_dataset_id),
            revision=versioned(dataset.revision),
            gcs_output_path=output(),
        ))

    return download_hf_step()


@step(name="documents/{dataset_cfg.simple_name}")
def transform_dataset_step(dataset_cfg: InstructionDatasetConfig, download_step: StepRef) -> StepRef:
    """Brings a data set into the format that all have."""
    return transform_conversation(TransformConversationConfig(
        input_path=download_step / "data",
        output_path=output(),
        adapter=versioned(dataset_cfg.adapter),
        subsets=versioned(list(dataset_cfg.subsets)),
        splits=versioned(list(dataset_cfg.splits)),
    ))


def get_instruction_dataset(hf_dataset_id: str, splits: Sequence[str] | None = None) -> StepRef:
    """A data set by its name on the Hub, ready for fine-tuning."""
    assert hf_dataset_id in INSTRUCTION_DATASET_NAME_TO_CONFIG, f"Unknown instruction dataset: {hf_dataset_id}"
    original_config = INSTRUCTION_DATASET_NAME_TO_CONFIG[hf_dataset_id]
    config = InstructionDatasetConfig(
        **{**original_config.__dict__, "splits": original_config.splits if splits is None else splits}
    )
    return transform_dataset_step(config, download_dataset_step(config))


def conversation_to_documents(hf_dataset_id: str) -> StepRef:
    """A data set as documents to pretrain on."""
    short = hf_dataset_id.rpartition("/")[2]
    conversations = get_instruction_dataset(hf_dataset_id)

    @step(name=f"documents/{short}-dolma")
    def convert_conversation_to_dolma_step() -> StepRef:
        return convert_conversation_to_dolma(ConversationToDolmaConfig(conversations, output_path=output()))

    return convert_conversation_to_dolma_step()
