"""Uploads tokenized data sets."""

from experiments.datasets.common import starcoder_tokenized, tokenized
from marin.execution.executor import ExecutorStep, executor_main, this_output_path
from marin.export.upload import UploadToHfConfig, upload_to_hf


def upload_step(name: str, input_step: ExecutorStep, repo_id: str) -> ExecutorStep:
    """Uploads the output of a step as a data set."""
    return ExecutorStep(
        name="upload/" + name,
        fn=upload_to_hf,
        config=UploadToHfConfig(
            input_path=input_step,
            repo_id=repo_id,
            output_path=this_output_path(),
            repo_type="dataset",
            upload_kwargs={"private": "true"},
        ),
    )


uploads = [upload_step(name, dataset, f"marin-community/{name}") for name, dataset in tokenized.items()]
upload_starcoder = upload_step("starcoderdata", starcoder_tokenized, "marin-community/starcoderdata")

if __name__ == "__main__":
    executor_main(steps=[*uploads, upload_starcoder])
