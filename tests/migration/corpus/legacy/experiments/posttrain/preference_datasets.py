"""Data sets of preferences."""

from marin.download.huggingface.download_hf import DownloadConfig, download_hf
from marin.execution.executor import ExecutorStep, this_output_path, versioned
from marin.transform.conversation.transform_conversation import TransformConversationConfig, transform_conversation

ULTRAFEEDBACK = "HuggingFaceH4/ultrafeedback_binarized"


def _named(kind: str) -> str:
    return f"preference/{kind}"


ultrafeedback_download = ExecutorStep(
    name=_named("ultrafeedback-raw"),
    fn=download_hf,
    config=DownloadConfig(
        hf_dataset_id=ULTRAFEEDBACK, revision=versioned("3949bf5"), gcs_output_path=this_output_path()
    ),
)

ultrafeedback = ExecutorStep(
    name=_named("ultrafeedback"),
    fn=transform_conversation,
    config=TransformConversationConfig(
        input_path=ultrafeedback_download / "data",
        output_path=this_output_path(),
        adapter="preference",
        subsets=[],
        splits=["train_prefs", "test_prefs"],
    ),
)
