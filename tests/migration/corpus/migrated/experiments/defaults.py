"""The usual way to do the usual things: what most experiments are made of."""

import dataclasses
from collections.abc import Sequence

from experiments.llama import llama3_tokenizer
from marin.download.huggingface.download_hf import DownloadConfig
from marin.download.huggingface.download_hf import download_hf as _download_hf
from marin.evaluation.evaluation import EvalTaskConfig, EvaluationConfig
from marin.evaluation.evaluation import evaluate as _evaluate
from marin_trace import StepRef, deferred, output, versioned
from marin_trace import step as marin_step
from marin.processing.tokenize.data_configs import LMMixtureDatasetConfig, lm_mixture_data_config
from marin.processing.tokenize.tokenize import HfTokenizeConfig, TokenizeConfig
from marin.processing.tokenize.tokenize import tokenize as _tokenize
from marin.speedrun.speedrun import SpeedrunConfig, SpeedrunResultsConfig
from marin.speedrun.speedrun import speedrun_results as _speedrun_results
from marin.training.training import ModelConfig, SimpleTrainConfig, TrainDpoConfig, TrainLmConfig
from marin.training.training import run_train_dpo as _run_train_dpo
from marin.training.training import run_train_lm as _run_train_lm

download_hf = deferred(_download_hf)
tokenize = deferred(_tokenize)
run_train_lm = deferred(_run_train_lm)
run_train_dpo = deferred(_run_train_dpo)
evaluate = deferred(_evaluate)
speedrun_results = deferred(_speedrun_results)

CORE_TASKS = (EvalTaskConfig("agieval_lsat_ar", 3), EvalTaskConfig("arc_easy", 10))
"""What every model is measured on."""


def default_download(name: str, hf_dataset_id: str, revision: str, **kwargs) -> StepRef:
    """Downloads a data set of the Hub, below ``raw``."""

    @marin_step(name=f"raw/{name}", description=f"Download {hf_dataset_id} revision {revision}")
    def download_hf_step() -> StepRef:
        return download_hf(DownloadConfig(
            hf_dataset_id=hf_dataset_id,
            revision=versioned(revision),
            gcs_output_path=output(),
            **kwargs,
        ))

    step = download_hf_step()
    return step.cd(revision) if kwargs.get("append_sha_to_path") else step / "data"


@marin_step(
    name="tokenized/{name}",
    description="Tokenize raw text using the {tokenizer} tokenizer.",
)
def default_tokenize(
    name: str,
    dataset: StepRef | str,
    tokenizer: str = llama3_tokenizer,
    *,
    is_validation: bool = False,
) -> StepRef:
    """Tokenizes a data set: the output of a step, a path, or one of the Hub by its name."""
    # A name of the Hub has exactly one slash, and no protocol.
    if isinstance(dataset, str) and dataset.count("/") == 1 and "://" not in dataset:
        config = HfTokenizeConfig(
            id=dataset,
            cache_path=output(),
            tokenizer=versioned(tokenizer),
        )
    else:
        config = TokenizeConfig(
            train_paths=[] if is_validation else [dataset],
            validation_paths=[dataset] if is_validation else [],
            cache_path=output(),
            tokenizer=versioned(tokenizer),
        )

    return tokenize(config)


def default_validation_sets(tokenizer: str = llama3_tokenizer) -> dict[str, StepRef]:
    """What models are watched on."""

    @marin_step(name="tokenized/validation/{name}")
    def tokenize_step(name) -> StepRef:
        return tokenize(TokenizeConfig(
            train_paths=versioned([]),
            validation_paths=[StepRef.hardcoded(f"raw/paloma/{name}/val")],
            cache_path=output(),
            tokenizer=versioned(tokenizer),
            tags=["paloma", name],
        ))

    return {
        name: tokenize_step(name)
        for name in ("c4_en", "wikitext_103")
    }


def _prepare_data(tokenized: StepRef | LMMixtureDatasetConfig, tokenizer: str) -> LMMixtureDatasetConfig:
    if isinstance(tokenized, LMMixtureDatasetConfig):
        return tokenized
    return lm_mixture_data_config({"train": tokenized}, {"train": 1.0}, tokenizer=tokenizer)


def default_train(
    name: str,
    tokenized: StepRef | LMMixtureDatasetConfig,
    model_config: ModelConfig,
    train_config: SimpleTrainConfig,
    tags: Sequence[str] = (),
    eval_harness_tasks: Sequence[EvalTaskConfig] = CORE_TASKS,
    override_output_path: str | None = None,
) -> StepRef:
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

    @marin_step(
        name=f"checkpoints/{name}",
        description=f"Train a model (hidden={model_config.hidden_dim}, layers={model_config.num_layers}) for {train_config.num_train_steps} steps.",
        override_output_path=override_output_path,
    )
    def run_train_lm_step() -> StepRef:
        config = TrainLmConfig(
            data=pretraining_data,
            model=versioned(model_config),
            train=train_config,
            output_path=output(),
            tags=[*tags, name],
            eval_harness_tasks=[task.name for task in eval_harness_tasks],
        )
        return run_train_lm(config)

    return run_train_lm_step()


def default_anneal(name: str, checkpoint: str, tokenized: LMMixtureDatasetConfig, model_config: ModelConfig) -> StepRef:
    """Goes on from a checkpoint, with a learning rate that falls to nothing."""
    train_config = SimpleTrainConfig(
        train_batch_size=1024,
        num_train_steps=5_000,
        learning_rate=1e-4,
        lr_schedule="linear",
        initialize_from_checkpoint_path=checkpoint,
    )
    return default_train(name, tokenized, model_config, train_config, tags=("anneal",))


@marin_step(name="checkpoints/{name}", pip_dependency_groups=["dpo"])
def default_dpo(name: str, preferences: StepRef, reference: StepRef, beta: float = 0.1) -> StepRef:
    """Trains on preferences, from a reference model."""
    return run_train_dpo(TrainDpoConfig(
        data=preferences / "train",
        reference_checkpoint=reference,
        output_path=output(),
        beta=versioned(beta),
    ))


@marin_step(name="evaluation/{step.name}")
def default_eval(step: StepRef, evals: Sequence[EvalTaskConfig] = CORE_TASKS, max_instances: int | None = None) -> StepRef:
    """Evaluates what a training has exported last."""
    return evaluate(EvaluationConfig(
        evaluator="levanter_lm_evaluation_harness",
        model_name=None,
        model_path=step / "hf",
        evaluation_path=output(),
        evals=list(evals),
        max_eval_instances=versioned(max_instances),
        discover_latest_checkpoint=True,
    ))


def default_speedrun(name: str, config: SpeedrunConfig, tokenized: StepRef, tags: Sequence[str] = ()) -> list[StepRef]:
    """Trains for the leaderboard, and reports."""
    trained = default_train(
        f"speedrun/{name}",
        tokenized,
        config.model_config,
        dataclasses.replace(config.train_config, steps_per_eval=500),
        tags=["speedrun", *tags],
    )

    @marin_step(
        name=f"speedrun/{name}-results",
        description=f"compute and store metrics and stats for the speedrun {name}",
    )
    def results_step() -> StepRef:
        return speedrun_results(SpeedrunResultsConfig(
            wandb_run_id=name,
            speedrun_config=config,
            checkpoint_path=trained / "checkpoints",
            output_path=output() / "speedrun_results.json",
        ))

    results = results_step()
    return [trained, results]
