"""Is anything of the evaluation sets in what we train on?"""

from dataclasses import replace

from experiments.datasets.common import downloads, starcoder
from marin_trace import StepRef, deferred, executor_main, output, step
from marin.processing.classification.decon import DeconConfig, DeconMode, NGramConfig
from marin.processing.classification.decon import decontaminate as _decontaminate

decontaminate = deferred(_decontaminate)

EVAL_SETS = StepRef.hardcoded("gs://marin-us-central2/decontamination/")


def BASE_CONFIG():
    return DeconConfig(
        input_path="",
        output_path=output(),
        decontaminate_source=EVAL_SETS / "merged",
        ngram=NGramConfig(ngram_length=(15,), overlap_threshold=0.5),
        mode=DeconMode.TRAIN_TEST_OVERLAP,
    )


def build_overlap_step(dataset_name: str, dataset: StepRef) -> StepRef:
    """Compares one data set with the evaluation sets."""

    @step(
        name=f"train_test_overlap/dolma/{dataset_name}",
        description=f"Overlap of {dataset_name} with {'all evaluation sets'}",
    )
    def decontaminate_step() -> StepRef:
        config = replace(BASE_CONFIG(), input_path=dataset)
        return decontaminate(config)

    return decontaminate_step()


@step(name="dclm/decontaminate/all")
def run_decontaminate():
    """Run train-test overlap."""
    build_overlap_step("fineweb", downloads["fineweb"]())
    build_overlap_step("slimpajama", downloads["slimpajama"]())
    build_overlap_step("starcoder", starcoder() / "data")


if __name__ == "__main__":
    executor_main(steps=[run_decontaminate()], description="Run train-test overlap")
