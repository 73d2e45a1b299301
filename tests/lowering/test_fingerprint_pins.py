"""Fingerprints are the same in every process, on every machine, next year."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lowering import recipes

ROOT = Path(__file__).parents[2]
PINS = ROOT / "tests" / "golden" / "fingerprints.json"


def in_another_process(*arguments: str, hash_seed: str) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-m", "tests.lowering.recipes", *arguments],
        env={**os.environ, "PYTHONHASHSEED": hash_seed, "MARIN_PREFIX": f"/elsewhere/{hash_seed}"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", [*recipes.RECIPES, *recipes.SPECS])
def test_fingerprints_are_the_pinned_ones(name: str) -> None:
    pinned = json.loads(PINS.read_text())
    assert recipes.fingerprints()[name] == pinned[name], (
        "everybody would compute everything again; if that is meant: "
        "python -m tests.lowering.recipes > tests/golden/fingerprints.json"
    )


def test_every_pin_belongs_to_a_recipe() -> None:
    pinned = json.loads(PINS.read_text())
    assert list(pinned) == [*recipes.RECIPES, *recipes.SPECS]
    assert len(pinned) >= 25


@pytest.mark.parametrize("hash_seed", ["1", "4242"])
def test_equal_configs_have_equal_fingerprints_in_another_process(hash_seed: str) -> None:
    assert in_another_process("--shuffle", hash_seed, hash_seed=hash_seed) == recipes.fingerprints()


def test_different_recipes_have_different_fingerprints() -> None:
    by_name = recipes.fingerprints()
    assert by_name.pop("omit_when") == by_name["unversioned-rule"]  # both leave out `by`, each in its own way
    assert len(set(by_name.values())) == len(by_name)
