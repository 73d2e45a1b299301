"""Data sets that experiments use as they are: each downloaded and tokenized once."""

from experiments.defaults import default_download, default_tokenize
from experiments.llama import llama3_tokenizer
from marin.download.huggingface.download_hf import DownloadConfig, download_hf
from marin.execution.executor import ExecutorStep, this_output_path, versioned

downloads = {
    "fineweb": ExecutorStep(
        name="raw/fineweb",
        fn=download_hf,
        config=DownloadConfig(
            hf_dataset_id="HuggingFaceFW/fineweb",
            revision=versioned("cd85054"),
            gcs_output_path=this_output_path(),
        ),
    ).cd("cd85054/data"),
    "slimpajama": (
        ExecutorStep(
            name="raw/SlimPajama-627B",
            fn=download_hf,
            # The revision that earlier experiments used.
            config=DownloadConfig(
                hf_dataset_id="cerebras/SlimPajama-627B",
                revision="2d0accd",
            ),
            override_output_path="raw/SlimPajama-627B-262830",
        )
    ),
}

dclm_baseline = default_download(
    "dclm",
    hf_dataset_id="mlfoundations/dclm-baseline-1.0",
    revision="a3b142c",
)

starcoder = ExecutorStep(
    name="raw/starcoderdata",
    fn=download_hf,
    config=DownloadConfig("bigcode/starcoderdata", versioned("9fc30b5"), gcs_output_path=this_output_path()),
    override_output_path="raw/starcoderdata-720c8c",
)

tokenized = {
    name: default_tokenize(name=f"{name}-llama3", dataset=download, tokenizer=llama3_tokenizer)
    for name, download in downloads.items()
}

starcoder_tokenized = default_tokenize("starcoderdata", starcoder / "data", llama3_tokenizer)
