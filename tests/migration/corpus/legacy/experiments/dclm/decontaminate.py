"""Is anything of the evaluation sets in what we train on?"""

from dataclasses import replace

from experiments.datasets.common import downloads, starcoder
from marin.execution.executor import ExecutorStep, InputName, executor_main, this_output_path
from marin.processing.classification.decon import DeconConfig, DeconMode, NGramConfig, decontaminate

EVAL_SETS = InputName.hardcoded("gs://marin-us-central2/decontamination/")

BASE_CONFIG = DeconConfig(
    input_path="",
    output_path=this_output_path(),
    decontaminate_source=EVAL_SETS / "merged",
    ngram=NGramConfig(ngram_length=(15,), overlap_threshold=0.5),
    mode=DeconMode.TRAIN_TEST_OVERLAP,
)


def build_overlap_step(dataset_name: str, dataset: ExecutorStep) -> ExecutorStep:
    """Compares one data set with the evaluation sets."""
    config = replace(BASE_CONFIG, input_path=dataset)
    return ExecutorStep(
        name=f"train_test_overlap/dolma/{dataset_name}",
        fn=decontaminate,
        config=config,
        description=f"Overlap of {dataset_name} with {'all evaluation sets'}",
    )


overlap_fineweb = build_overlap_step("fineweb", downloads["fineweb"])
overlap_slimpajama = build_overlap_step("slimpajama", downloads["slimpajama"])
overlap_starcoder = build_overlap_step("starcoder", starcoder / "data")

STEPS = [overlap_fineweb, overlap_slimpajama, overlap_starcoder]

if __name__ == "__main__":
    executor_main(steps=STEPS, description="Run train-test overlap")
