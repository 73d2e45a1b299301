"""The usual way to do the usual things: what most experiments are made of."""

import dataclasses
import os
from collections.abc import Sequence

from experiments.llama import llama3_tokenizer
from marin.download.huggingface.download_hf import DownloadConfig, download_hf
from marin.evaluation.evaluation import EvalTaskConfig, EvaluationConfig, evaluate
from marin.execution.executor import (
    ExecutorStep,
    InputName,
    ensure_versioned,
    this_output_path,
    unwrap_versioned_value,
    versioned,
)
from marin.processing.tokenize.data_configs import LMMixtureDatasetConfig, lm_mixture_data_config
from marin.processing.tokenize.tokenize import HfTokenizeConfig, TokenizeConfig, tokenize
from marin.speedrun.speedrun import SpeedrunConfig, SpeedrunResultsConfig, speedrun_results
from marin.training.training import ModelConfig, SimpleTrainConfig, TrainDpoConfig, TrainLmConfig, run_train_dpo, run_train_lm

CORE_TASKS = (EvalTaskConfig("agieval_lsat_ar", 3), EvalTaskConfig("arc_easy", 10))
"""What every model is measured on."""


def default_download(name: str, hf_dataset_id: str, revision: str, **kwargs) -> InputName:
    """Downloads a data set of the Hub, below ``raw``."""
    step = ExecutorStep(
        name=f"raw/{name}",
        description=f"Download {hf_dataset_id} revision {revision}",
        fn=download_hf,
        config=DownloadConfig(
            hf_dataset_id=hf_dataset_id,
            revision=versioned(revision),
            gcs_output_path=this_output_path(),
            **kwargs,
        ),
    )
    return step.cd(revision) if kwargs.get("append_sha_to_path") else step / "data"


def default_tokenize(
    name: str,
    dataset: InputName | ExecutorStep | str,
    tokenizer: str = llama3_tokenizer,
    *,
    is_validation: bool = False,
) -> ExecutorStep:
    """Tokenizes a data set: the output of a step, a path, or one of the Hub by its name."""
    # A name of the Hub has exactly one slash, and no protocol.
    if isinstance(dataset, str) and dataset.count("/") == 1 and "://" not in dataset:
        config = HfTokenizeConfig(
            id=dataset,
            cache_path=this_output_path(),
            tokenizer=ensure_versioned(tokenizer),
        )
    else:
        config = TokenizeConfig(
            train_paths=[] if is_validation else [dataset],
            validation_paths=[dataset] if is_validation else [],
            cache_path=this_output_path(),
            tokenizer=ensure_versioned(tokenizer),
        )

    return ExecutorStep(
        name=os.path.join("tokenized", name),
        description=f"Tokenize raw text using the {tokenizer} tokenizer.",
        fn=tokenize,
        config=config,
    )


def default_validation_sets(tokenizer: str = llama3_tokenizer) -> dict[str, ExecutorStep]:
    """What models are watched on."""
    return {
        name: ExecutorStep(
            name=f"tokenized/validation/{name}",
            fn=tokenize,
            config=TokenizeConfig(
                train_paths=versioned([]),
                validation_paths=[InputName.hardcoded(f"raw/paloma/{name}/val")],
                cache_path=this_output_path(),
                tokenizer=versioned(tokenizer),
                tags=["paloma", name],
            ),
        )
        for name in ("c4_en", "wikitext_103")
    }


def _prepare_data(tokenized: InputName | ExecutorStep | LMMixtureDatasetConfig, tokenizer: str) -> LMMixtureDatasetConfig:
    if isinstance(tokenized, LMMixtureDatasetConfig):
        return tokenized
    return lm_mixture_data_config({"train": tokenized}, {"train": 1.0}, tokenizer=unwrap_versioned_value(tokenizer))


def default_train(
    name: str,
    tokenized: InputName | ExecutorStep | LMMixtureDatasetConfig,
    model_config: ModelConfig,
    train_config: SimpleTrainConfig,
    tags: Sequence[str] = (),
    eval_harness_tasks: Sequence[EvalTaskConfig] = CORE_TASKS,
    override_output_path: str | None = None,
) -> ExecutorStep:
    """Trains a language model.

    Args:
        name: Of the run; what is longer than 64 characters is cut.
        tokenized: What to train on.
        model_config: The shape of the model.
        train_config: How to train.
        tags: For finding the run again.
        eval_harness_tasks: What the model is measured on while it trains.
        override_output_path: Where the checkpoints go, instead of below ``checkpoints``.
    """
    pretraining_data = _prepare_data(tokenized, llama3_tokenizer)
    name = name[:64]
    config = TrainLmConfig(
        data=pretraining_data,
        model=versioned(model_config),
        train=train_config,
        output_path=this_output_path(),
        tags=[*tags, name],
        eval_harness_tasks=[task.name for task in eval_harness_tasks],
    )

    return ExecutorStep(
        name=os.path.join("checkpoints", name),
        description=(
            f"Train a model (hidden={model_config.hidden_dim}, layers={model_config.num_layers}) "
            f"for {train_config.num_train_steps} steps."
        ),
        fn=run_train_lm,
        config=config,
        override_output_path=override_output_path,
    )


def default_anneal(name: str, checkpoint: str, tokenized: LMMixtureDatasetConfig, model_config: ModelConfig) -> ExecutorStep:
    """Goes on from a checkpoint, with a learning rate that falls to nothing."""
    train_config = SimpleTrainConfig(
        train_batch_size=1024,
        num_train_steps=5_000,
        learning_rate=1e-4,
        lr_schedule="linear",
        initialize_from_checkpoint_path=checkpoint,
    )
    return default_train(name, tokenized, model_config, train_config, tags=("anneal",))


def default_dpo(name: str, preferences: ExecutorStep, reference: InputName, beta: float = 0.1) -> ExecutorStep:
    """Trains on preferences, from a reference model."""
    return ExecutorStep(
        name=f"checkpoints/{name}",
        fn=run_train_dpo,
        config=TrainDpoConfig(
            data=preferences / "train",
            reference_checkpoint=reference,
            output_path=this_output_path(),
            beta=versioned(beta),
        ),
        pip_dependency_groups=["dpo"],
    )


def default_eval(step: ExecutorStep, evals: Sequence[EvalTaskConfig] = CORE_TASKS, max_instances: int | None = None) -> ExecutorStep:
    """Evaluates what a training has exported last."""
    return ExecutorStep(
        name=f"evaluation/{step.name}",
        fn=evaluate,
        config=EvaluationConfig(
            evaluator="levanter_lm_evaluation_harness",
            model_name=None,
            model_path=step / "hf",
            evaluation_path=this_output_path(),
            evals=list(evals),
            max_eval_instances=versioned(max_instances),
            discover_latest_checkpoint=True,
        ),
    )


def default_speedrun(name: str, config: SpeedrunConfig, tokenized: ExecutorStep, tags: Sequence[str] = ()) -> list[ExecutorStep]:
    """Trains for the leaderboard, and reports."""
    trained = default_train(
        f"speedrun/{name}",
        tokenized,
        config.model_config,
        dataclasses.replace(config.train_config, steps_per_eval=500),
        tags=["speedrun", *tags],
    )
    results = ExecutorStep(
        name=f"speedrun/{name}-results",
        description=f"compute and store metrics and stats for the speedrun {name}",
        fn=speedrun_results,
        config=SpeedrunResultsConfig(
            wandb_run_id=name,
            speedrun_config=config,
            checkpoint_path=trained / "checkpoints",
            output_path=this_output_path("speedrun_results.json"),
        ),
    )
    return [trained, results]
