"""Steps that download: files from anywhere, data sets from the Hugging Face Hub."""

from collections.abc import Sequence

from experiments.lib.download.fetch import Retries
from experiments.lib.download.files import DownloadConfig, RemoteFile
from experiments.lib.download.files import download_files as _download_files
from experiments.lib.download.hugging_face import HuggingFaceConfig
from experiments.lib.download.hugging_face import download_hugging_face as _download_hugging_face
from marin_trace import StepRef, deferred, output, step, unversioned

download_files = deferred(_download_files)
download_hugging_face = deferred(_download_hugging_face)


@step(name="raw/{name}")
def downloaded_files(
    name: str, files: Sequence[RemoteFile], *, workers: int = 4, retries: Retries | None = None
) -> StepRef:
    """Files by their URLs; artifact: `Download`."""
    return download_files(
        DownloadConfig(
            files=tuple(files),
            output_path=output(),
            workers=unversioned(workers),
            retries=unversioned(retries or Retries()),
        )
    )


@step(name="raw/{name}")
def downloaded_dataset(
    name: str,
    dataset_id: str,
    revision: str,
    *,
    allow_patterns: Sequence[str] = (),
    workers: int = 4,
    retries: Retries | None = None,
) -> StepRef:
    """The files of a data set on the Hugging Face Hub at a commit; artifact: `Download`."""
    return download_hugging_face(
        HuggingFaceConfig(
            dataset_id=dataset_id,
            revision=revision,
            output_path=output(),
            allow_patterns=tuple(allow_patterns),
            workers=unversioned(workers),
            retries=unversioned(retries or Retries()),
        )
    )
