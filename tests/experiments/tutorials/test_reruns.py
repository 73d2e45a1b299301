"""What a changed flag runs again, as the lowered graphs tell: equal output paths are found finished."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from experiments.tutorials.checkpoint_watch import WatchFlags, checkpoint_watch, watched_recipe
from experiments.tutorials.data_mixture import MixtureFlags, data_mixture, mixtures_of, names_of
from experiments.tutorials.hello_corpus import located
from experiments.tutorials.sweep_learning_rate import SweepFlags, sweep_learning_rate
from experiments.tutorials.train_tiny_model_cpu import TinyModelFlags, TrainFlags, train_tiny_model
from marin_trace import lower, trace

TINY = TinyModelFlags(source="/source")
SWEEP = SweepFlags(source="/source")
WATCH = WatchFlags(source="/source")
PARTS = {"code": "/code", "prose": "/prose"}


def mixture_group(name: str, flags: MixtureFlags) -> Any:
    return data_mixture(name, PARTS, mixtures_of(("code", "prose"), flags.shares), flags)


def paths(group: Callable[..., Any], flags: Any) -> dict[str, str]:
    """The output path of each step by its name."""
    return {spec.name: spec.output_path for spec in lower(trace(group, "x", flags), prefix="/p")}


def rerun(group: Callable[..., Any], before: Any, after: Any) -> set[str]:
    """The steps that the second has to build where the first is finished."""
    finished = set(paths(group, before).values())
    return {name for name, path in paths(group, after).items() if path not in finished}


MODEL_STEPS = {f"{kind}/tiny-x" for kind in ("checkpoints", "evaluations", "samples", "exports", "training_reports")}


def test_another_learning_rate_runs_the_training_and_what_follows_again_and_nothing_before() -> None:
    assert rerun(train_tiny_model, TINY, replace(TINY, train=TrainFlags(learning_rate=1e-3))) == MODEL_STEPS


def test_another_vocabulary_keeps_the_corpus() -> None:
    again = rerun(train_tiny_model, TINY, replace(TINY, vocab_size=512))
    assert again == {*MODEL_STEPS, "tokenizers/x", "tokenized/x", "baselines/tiny-x"}


@pytest.mark.parametrize(
    ("group", "flags"),
    [
        (train_tiny_model, TINY),
        (sweep_learning_rate, SWEEP),
        (checkpoint_watch, WATCH),
        (mixture_group, MixtureFlags()),
    ],
)
def test_other_worker_counts_run_nothing_again(group: Callable[..., Any], flags: Any) -> None:
    assert rerun(group, flags, replace(flags, workers=7)) == set()


def test_more_patience_runs_nothing_again() -> None:
    assert rerun(checkpoint_watch, WATCH, replace(WATCH, patience_s=7.0)) == set()


def test_one_changed_rate_runs_that_training_and_the_comparison() -> None:
    changed = replace(SWEEP, learning_rates=[1e-3, 5e-3, 1.6e-2])
    assert rerun(sweep_learning_rate, SWEEP, changed) == {"checkpoints/sweep-x-lr-0.005", "sweeps/x"}


def test_the_order_of_the_rates_and_repeated_ones_do_not_matter() -> None:
    shuffled = replace(SWEEP, learning_rates=[1.6e-2, 1e-3, 4e-3, 1e-3])
    assert rerun(sweep_learning_rate, SWEEP, shuffled) == set()


def test_another_share_tokenises_nothing_again() -> None:
    again = rerun(mixture_group, MixtureFlags(), MixtureFlags(shares=[0.75, 0.5, 0.1]))
    assert again == {
        "checkpoints/mixture-code-10-prose-90",
        "evaluations/code-10-prose-90-on-code",
        "evaluations/code-10-prose-90-on-prose",
        "mixtures/x",
    }


def test_a_watcher_reads_the_training_and_does_not_wait_for_it() -> None:
    steps = {node.name: node for node in trace(checkpoint_watch, "x", WATCH).nodes}
    specs = {spec.name: spec for spec in lower(trace(checkpoint_watch, "x", WATCH), prefix="/p")}
    training = specs["checkpoints/watched-x"].output_path
    assert "watched/x" in steps
    assert training not in {dep.output_path for dep in specs["watched/x"].deps}
    assert training in {dep.output_path for dep in specs["watched/x"].nonblocking_deps}


@pytest.mark.parametrize("checkpoints", [1, 3, 7, 1000])
def test_a_watched_training_keeps_every_checkpoint(checkpoints: int) -> None:
    recipe = watched_recipe(replace(WATCH, checkpoints=checkpoints))
    made = -(-recipe.steps // recipe.checkpoints.every_steps)
    assert made <= recipe.checkpoints.keep_last


@pytest.mark.parametrize(
    ("sources", "names"), [(["a/code", "b/prose"], ("code", "prose")), (["a/x", "b/x"], ("x-1", "x-2"))]
)
def test_two_corpora_have_two_names(sources: list[str], names: tuple[str, str]) -> None:
    assert names_of(sources) == names


def test_sources_that_make_no_mixture_are_refused() -> None:
    with pytest.raises(ValueError, match="takes two sources, not 1"):
        names_of(["a"])
    with pytest.raises(ValueError, match="a share lies between 0 and 1"):
        mixtures_of(("a", "b"), [0.5, 1.0])


def test_a_part_of_the_standard_library_is_no_local_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert [located(source) for source in ("stdlib", "stdlib/email", "stdlibrary", "./stdlib")] == [
        "stdlib",
        "stdlib/email",
        f"{tmp_path}/stdlibrary",
        f"{tmp_path}/stdlib",
    ]
