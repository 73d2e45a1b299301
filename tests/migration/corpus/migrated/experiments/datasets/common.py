"""Data sets that experiments use as they are: each downloaded and tokenized once."""

from experiments.defaults import default_download, default_tokenize
from experiments.llama import llama3_tokenizer
from marin.download.huggingface.download_hf import DownloadConfig
from marin.download.huggingface.download_hf import download_hf as _download_hf
from marin_trace import StepRef, deferred, output, step, versioned

download_hf = deferred(_download_hf)


@step(name="raw/fineweb")
def fineweb() -> StepRef:
    return download_hf(DownloadConfig(
        hf_dataset_id="HuggingFaceFW/fineweb",
        revision=versioned("cd85054"),
        gcs_output_path=output(),
    ))


@step(name="raw/SlimPajama-627B", override_output_path="raw/SlimPajama-627B-262830")
def downloads_slimpajama() -> StepRef:
    # The revision that earlier experiments used.
    return download_hf(DownloadConfig(
        hf_dataset_id="cerebras/SlimPajama-627B",
        revision="2d0accd",
        gcs_output_path=output(),
    ))


downloads = {
    "fineweb": lambda: fineweb().cd("cd85054/data"),
    "slimpajama": downloads_slimpajama,
}


@step(name="datasets/common/dclm_baseline")
def dclm_baseline() -> StepRef:
    return default_download(
        "dclm",
        hf_dataset_id="mlfoundations/dclm-baseline-1.0",
        revision="a3b142c",
    )


@step(name="raw/starcoderdata", override_output_path="raw/starcoderdata-720c8c")
def starcoder() -> StepRef:
    return download_hf(DownloadConfig("bigcode/starcoderdata", versioned("9fc30b5"), gcs_output_path=output()))


tokenized = {
    name: lambda name=name, download=download: default_tokenize(name=f"{name}-llama3", dataset=download(), tokenizer=llama3_tokenizer)
    for name, download in downloads.items()
}


@step(name="datasets/common/starcoder_tokenized")
def starcoder_tokenized() -> StepRef:
    return default_tokenize("starcoderdata", starcoder() / "data", llama3_tokenizer)
