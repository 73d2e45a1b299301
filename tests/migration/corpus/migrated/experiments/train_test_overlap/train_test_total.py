"""The overlap of all training sets with all evaluation sets, for several lengths of n-grams."""

from dataclasses import dataclass

from experiments.posttrain.preference_datasets import ultrafeedback, ultrafeedback_download
from marin_trace import StepRef, deferred, executor_main, output, step
from marin.processing.classification.decon import DeconConfig, NGramConfig
from marin.processing.classification.decon import decontaminate as _decontaminate

decontaminate = deferred(_decontaminate)


@dataclass(frozen=True)
class DatasetConfig:
    """A data set that is looked through."""

    name: str
    path: StepRef
    text_field: str = "text"


LENGTHS = [10, 15]


@step(name="train_test_overlap/{dataset_config.name}/{length}")
def build_step(dataset_config: DatasetConfig, length: int) -> StepRef:
    dedupe_config = DeconConfig(
        input_path=dataset_config.path,
        ngram=NGramConfig(ngram_length=(length,)),
        processes=1024,
        output_path=output(),
    )
    return decontaminate(dedupe_config)


@step(name="train_test_overlap/train_test_total/all")
def run_train_test_total():
    """Total overlap."""
    DATASET_CONFIGS = [
        DatasetConfig("ultrafeedback-raw", ultrafeedback_download() / "data"),
        DatasetConfig("ultrafeedback", path=ultrafeedback()),
    ]

    STEPS = [build_step(config, length) for config in DATASET_CONFIGS for length in LENGTHS]


if __name__ == "__main__":
    executor_main(steps=[run_train_test_total()], description="Total overlap")
