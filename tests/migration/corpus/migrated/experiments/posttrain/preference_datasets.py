"""Data sets of preferences."""

from marin.download.huggingface.download_hf import DownloadConfig
from marin.download.huggingface.download_hf import download_hf as _download_hf
from marin_trace import StepRef, deferred, output, step, versioned
from marin.transform.conversation.transform_conversation import TransformConversationConfig
from marin.transform.conversation.transform_conversation import transform_conversation as _transform_conversation

download_hf = deferred(_download_hf)
transform_conversation = deferred(_transform_conversation)

ULTRAFEEDBACK = "HuggingFaceH4/ultrafeedback_binarized"


def _named(kind: str) -> str:
    return f"preference/{kind}"


@step(name=_named("ultrafeedback-raw"))
def ultrafeedback_download() -> StepRef:
    return download_hf(DownloadConfig(
        hf_dataset_id=ULTRAFEEDBACK, revision=versioned("3949bf5"), gcs_output_path=output()
    ))


@step(name=_named("ultrafeedback"))
def ultrafeedback() -> StepRef:
    return transform_conversation(TransformConversationConfig(
        input_path=ultrafeedback_download() / "data",
        output_path=output(),
        adapter="preference",
        subsets=[],
        splits=["train_prefs", "test_prefs"],
    ))
