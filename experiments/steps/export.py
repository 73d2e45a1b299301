"""Steps that hand a trained model to others."""

from typing import Literal

from experiments.lib.llama.export import ExportConfig
from experiments.lib.llama.export import export_model as _export_model
from experiments.lib.upload import UploadConfig
from experiments.lib.upload import upload_directory as _upload_directory
from marin_trace import StepRef, deferred, output, step

export_model = deferred(_export_model)
upload_directory = deferred(_upload_directory)


@step(name="exports/{name}")
def exported_model(
    name: str, model: StepRef, tokenizer: StepRef, *, dtype: Literal["float32", "bfloat16"] = "float32"
) -> StepRef:
    """A model's best checkpoint, as `transformers` reads it; artifact: `ExportedModel`."""
    return export_model(
        ExportConfig(
            model_path=model,
            step=model.artifact.best_step,
            tokenizer_path=tokenizer,
            output_path=output(),
            dtype=dtype,
        )
    )


@step(name="uploads/{name}")
def uploaded_directory(name: str, source: StepRef, destination: str, *, private: bool = True) -> StepRef:
    """A copy of a step's output at an fsspec URL or on the Hub (`hf://user/model`); artifact: `Upload`."""
    return upload_directory(
        UploadConfig(source_path=source, destination=destination, private=private, message=f"Upload {name}")
    )
