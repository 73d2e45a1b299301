"""Uploads what the 8B baseline has reached."""

from experiments.llama import llama3_tokenizer
from experiments.tootsie.exp859_baseline_8b import llama_8b_tootsie, llama_8b_tootsie_anneal
from marin_trace import StepRef, deferred, executor_main, output, step, versioned
from marin.export.levanter_checkpoint import ConvertCheckpointStepConfig
from marin.export.levanter_checkpoint import convert_checkpoint_to_hf as _convert_checkpoint_to_hf
from marin.export.upload import UploadToHfConfig
from marin.export.upload import upload_to_hf as _upload_to_hf

convert_checkpoint_to_hf = deferred(_convert_checkpoint_to_hf)
upload_to_hf = deferred(_upload_to_hf)


@step(name="hf/llama-8b-tootsie-{phase}")
def converted_step(checkpoint, phase) -> StepRef:
    return convert_checkpoint_to_hf(ConvertCheckpointStepConfig(
        checkpoint_path=checkpoint,
        tokenizer=versioned(llama3_tokenizer),
        output_path=output(),
    ))


@step(
    name="upload/llama-8b-tootsie-{phase}",
    description="Upload one checkpoint",
    pip_dependency_groups=["hub"],
)
def upload_to_hf_step(converted, phase) -> StepRef:
    return upload_to_hf(UploadToHfConfig(
        input_path=converted,
        repo_id=f"marin-community/marin-8b-{phase}",
        output_path=output(),
    ))


@step(name="tootsie/exp1063_upload_tootsie/all")
def run_exp1063_upload_tootsie():
    """Upload the 8B baseline."""
    CHECKPOINTS = {
        "phase1": llama_8b_tootsie() / "checkpoints/step-660000",
        "anneal": llama_8b_tootsie_anneal() / "checkpoints/step-5000",
    }

    exports = []
    for phase, checkpoint in CHECKPOINTS.items():
        converted = converted_step(checkpoint, phase)
        exports.append(
            upload_to_hf_step(converted, phase)
        )


if __name__ == "__main__":
    executor_main(steps=[run_exp1063_upload_tootsie()], description="Upload the 8B baseline")
