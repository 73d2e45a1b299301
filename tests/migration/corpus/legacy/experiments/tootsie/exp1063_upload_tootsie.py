"""Uploads what the 8B baseline has reached."""

from experiments.llama import llama3_tokenizer
from experiments.tootsie.exp859_baseline_8b import llama_8b_tootsie, llama_8b_tootsie_anneal
from marin.execution.executor import ExecutorStep, executor_main, this_output_path, versioned
from marin.export.levanter_checkpoint import ConvertCheckpointStepConfig, convert_checkpoint_to_hf
from marin.export.upload import UploadToHfConfig, upload_to_hf

CHECKPOINTS = {
    "phase1": llama_8b_tootsie / "checkpoints/step-660000",
    "anneal": llama_8b_tootsie_anneal / "checkpoints/step-5000",
}

exports = []
for phase, checkpoint in CHECKPOINTS.items():
    converted = ExecutorStep(
        name=f"hf/llama-8b-tootsie-{phase}",
        fn=convert_checkpoint_to_hf,
        config=ConvertCheckpointStepConfig(
            checkpoint_path=checkpoint,
            tokenizer=versioned(llama3_tokenizer),
        ),
    )
    exports.append(
        ExecutorStep(
            name=f"upload/llama-8b-tootsie-{phase}",
            description="Upload one checkpoint",
            fn=upload_to_hf,
            config=UploadToHfConfig(
                input_path=converted,
                repo_id=f"marin-community/marin-8b-{phase}",
                output_path=this_output_path(),
            ),
            pip_dependency_groups=["hub"],
        )
    )

if __name__ == "__main__":
    executor_main(steps=exports, description="Upload the 8B baseline")
