"""The overlap of all training sets with all evaluation sets, for several lengths of n-grams."""

from dataclasses import dataclass

from experiments.posttrain.preference_datasets import ultrafeedback, ultrafeedback_download
from marin.execution.executor import ExecutorStep, executor_main, this_output_path
from marin.processing.classification.decon import DeconConfig, NGramConfig, decontaminate


@dataclass(frozen=True)
class DatasetConfig:
    """A data set that is looked through."""

    name: str
    path: ExecutorStep
    text_field: str = "text"


DATASET_CONFIGS = [
    DatasetConfig("ultrafeedback-raw", ultrafeedback_download / "data"),
    DatasetConfig("ultrafeedback", path=ultrafeedback),
]

LENGTHS = [10, 15]


def build_step(dataset_config: DatasetConfig, length: int) -> ExecutorStep:
    dedupe_config = DeconConfig(
        input_path=dataset_config.path,
        ngram=NGramConfig(ngram_length=(length,)),
        processes=1024,
    )
    return ExecutorStep(
        name=f"train_test_overlap/{dataset_config.name}/{length}",
        fn=decontaminate,
        config=dedupe_config,
    )


STEPS = [build_step(config, length) for config in DATASET_CONFIGS for length in LENGTHS]

if __name__ == "__main__":
    executor_main(steps=STEPS, description="Total overlap")
