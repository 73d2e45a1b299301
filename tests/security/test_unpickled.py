"""Stored bytes are data: none is ever unpickled, evaluated, or taken for the name of something to import."""

import ast
import io
import os
import pickle
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.soak.fuzz import prepared, read_everything

ROOT = Path(__file__).parents[2]


class Bomb:
    """Leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.mark),))


def bombs(mark: Path) -> Iterator[bytes]:
    objects = io.BytesIO()
    np.save(objects, np.array([Bomb(mark)], dtype=object), allow_pickle=True)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("a.npy", objects.getvalue())
    yield from (pickle.dumps(Bomb(mark)), pickle.dumps(Bomb(mark), protocol=0), objects.getvalue(), archive.getvalue())


def test_a_bomb_goes_off_when_it_is_unpickled(tmp_path: Path) -> None:
    pickle.loads(next(bombs(tmp_path / "mark")))
    assert (tmp_path / "mark").exists()


def test_no_stored_byte_is_ever_unpickled(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    victims = prepared(tmp_path / "prefix")
    refused: Counter[str] = Counter()
    for victim in victims:
        for path in victim.files:
            original = path.read_bytes()
            for bomb in bombs(mark):
                path.write_bytes(bomb)
                assert read_everything(victim, path, refused) is None
            path.write_bytes(original)
    assert not mark.exists()
    assert refused.total() > 100


EXECUTES = {"pickle", "cloudpickle", "marshal", "shelve", "dill", "joblib", "importlib", "runpy", "code"}
MAY_EXECUTE = {
    "marin_trace/__init__.py": {"importlib"},
    "marin_trace/cli/experiment.py": {"compile", "exec", "importlib"},
    "marin_trace/cli/main.py": {"importlib"},
    "marin_trace/cli/migrate.py": {"importlib"},
    "marin_trace/legacy/__init__.py": {"importlib"},
    "marin_trace/planning/plan_json.py": {"importlib"},
    "marin_trace/workers/fray.py": {"importlib"},
    "marin_trace/workers/fray_main.py": {"pickle"},
    "marin_trace/workers/fray_package.py": {"importlib"},
    "marin_trace/workers/fray_request.py": {"importlib"},
    "marin_trace/workers/local.py": {"pickle"},
    "marin_trace/workers/local_main.py": {"pickle"},
    "marin_trace/workers/outcome.py": {"pickle"},
    "marin_trace/workers/overlay.py": {"importlib"},
    "marin_trace/workers/payload.py": {"cloudpickle"},
    "marin_trace/workers/ray.py": {"importlib"},
    "marin_trace/workers/ray_gang.py": {"importlib"},
    "marin_trace/workers/ray_job.py": {"pickle", "importlib"},
}
"""The payloads of jobs, from launcher to job and back; an experiment that the user names; lazy names and
commands of this package; and whether pip, Ray, fray and libcst are here."""


def executing_names(source: str) -> set[str]:
    """What of a module could run or import what it is given."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                found |= {alias.name.partition(".")[0] for alias in aliases} & EXECUTES
            case ast.ImportFrom(module=str(module)):
                found |= {module.partition(".")[0]} & EXECUTES
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" | "__import__" as name)):
                found.add(name)
            case ast.keyword(arg="allow_pickle", value=ast.Constant(value=True)):
                found.add("allow_pickle")
            case _:
                pass
    return found


def test_only_the_payloads_of_jobs_are_unpickled_and_nothing_is_evaluated() -> None:
    files = sorted((ROOT / "marin_trace").rglob("*.py"))
    found = {str(path.relative_to(ROOT)): executing_names(path.read_text()) for path in files}
    allowed = {path: names for path, names in found.items() if names}
    assert {
        path: names - MAY_EXECUTE.get(path, set())
        for path, names in allowed.items()
        if names - MAY_EXECUTE.get(path, set())
    } == {}


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import pickle as p", {"pickle"}),
        ("def f():\n    from importlib import import_module", {"importlib"}),
        ("eval('1')", {"eval"}),
        ("np.load(x, allow_pickle=True)", {"allow_pickle"}),
        ("re.compile('x')", set()),
    ],
)
def test_the_check_sees_what_executes(source: str, names: set[str]) -> None:
    assert executing_names(source) == names
