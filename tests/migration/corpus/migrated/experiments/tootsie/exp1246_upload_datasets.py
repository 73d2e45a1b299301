"""Uploads tokenized data sets."""

from experiments.datasets.common import starcoder_tokenized, tokenized
from marin_trace import StepRef, deferred, executor_main, output, step
from marin.export.upload import UploadToHfConfig
from marin.export.upload import upload_to_hf as _upload_to_hf

upload_to_hf = deferred(_upload_to_hf)


@step(name="upload/{name}")
def upload_step(name: str, input_step: StepRef, repo_id: str) -> StepRef:
    """Uploads the output of a step as a data set."""
    return upload_to_hf(UploadToHfConfig(
        input_path=input_step,
        repo_id=repo_id,
        output_path=output(),
        repo_type="dataset",
        upload_kwargs={"private": "true"},
    ))


@step(name="tootsie/exp1246_upload_datasets/all")
def run_exp1246_upload_datasets():
    """Entry step of tootsie/exp1246_upload_datasets."""
    for name, dataset in {key: make() for key, make in tokenized.items()}.items():
        upload_step(name, dataset, f"marin-community/{name}")
    upload_step("starcoderdata", starcoder_tokenized(), "marin-community/starcoderdata")


if __name__ == "__main__":
    executor_main(steps=[run_exp1246_upload_datasets()])
