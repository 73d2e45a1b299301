"""What identifies a function: never ``__main__``, and the same however a script is started."""

import functools
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marin_trace import StepRef, deferred, step
from marin_trace.errors import UnstableValueError
from marin_trace.ir.functions import function_identity, module_of, script_module, unwrapped

ROOT = Path(__file__).parents[2]

SCRIPT = """
import dataclasses
from marin_trace import deferred

@dataclasses.dataclass
class Config:
    x: int

def work(x): ...

@deferred
def decorated(x): ...

NAMES = [deferred(work).identity, deferred(Config).identity, decorated.identity]
if __name__ == "__main__":
    print(*NAMES, sep="\\n")
"""


def printed(*arguments: str, cwd: Path, search_path: str = "") -> list[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), search_path]))}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def names(module: str) -> list[str]:
    return [f"{module}:{name}" for name in ("work", "Config", "decorated")]


def written(path: Path, text: str = SCRIPT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def importing(module: str) -> list[str]:
    return ["-c", f"import {module} as m; print(*m.NAMES, sep='\\n')"]


def test_a_script_in_a_package_agrees_however_it_is_started(tmp_path: Path) -> None:
    script = written(tmp_path / "pkg" / "sub" / "exp.py")
    for directory in (tmp_path / "pkg", tmp_path / "pkg" / "sub"):
        written(directory / "__init__.py", "")
    expected = names("pkg.sub.exp")
    assert printed(str(script), cwd=tmp_path) == expected
    assert printed("exp.py", cwd=script.parent) == expected
    assert printed("-m", "pkg.sub.exp", cwd=tmp_path) == expected
    assert printed(*importing("pkg.sub.exp"), cwd=tmp_path) == expected


def test_a_script_below_a_search_path_entry_agrees_however_it_is_started(tmp_path: Path) -> None:
    script = written(tmp_path / "scripts" / "deep" / "exp.py")
    expected = names("scripts.deep.exp")
    assert printed(str(script), cwd=tmp_path, search_path=str(tmp_path)) == expected
    assert printed("-m", "scripts.deep.exp", cwd=tmp_path) == expected
    assert printed(*importing("scripts.deep.exp"), cwd=tmp_path) == expected


def test_a_script_in_a_project_is_named_from_its_root(tmp_path: Path) -> None:
    written(tmp_path / "pyproject.toml", "")
    script = written(tmp_path / "experiments" / "exp.py")
    assert printed(str(script), cwd=Path("/")) == names("experiments.exp")
    assert printed("exp.py", cwd=script.parent) == names("experiments.exp")


def test_a_script_on_its_own_is_named_by_its_stem(tmp_path: Path) -> None:
    script = written(tmp_path / "alone.py")
    assert printed(str(script), cwd=Path("/")) == names("alone")
    assert printed(*importing("alone"), cwd=tmp_path) == names("alone")


def test_a_package_run_as_a_module_is_its_main_module(tmp_path: Path) -> None:
    written(tmp_path / "pkg" / "__init__.py", "")
    main = written(tmp_path / "pkg" / "__main__.py")
    assert printed("-m", "pkg", cwd=tmp_path) == names("pkg.__main__")
    assert printed(str(main), cwd=tmp_path) == names("pkg.__main__")


def test_a_script_reached_by_a_link_is_named_by_where_it_lies(tmp_path: Path) -> None:
    written(tmp_path / "pyproject.toml", "")
    script = written(tmp_path / "experiments" / "exp.py")
    link = tmp_path / "elsewhere.py"
    link.symlink_to(script)
    assert printed(str(link), cwd=tmp_path) == names("experiments.exp")


def test_the_deepest_search_path_entry_counts(tmp_path: Path) -> None:
    file = str(written(tmp_path / "a" / "b" / "c" / "exp.py"))
    entries = (str(tmp_path), str(tmp_path / "a"), str(tmp_path / "a" / "b" / "c"))
    assert script_module(file, entries) == "b.c.exp"


def test_text_given_to_the_interpreter_has_no_identity(tmp_path: Path) -> None:
    code = """
from marin_trace import deferred, MarinTraceError
def work(): ...
try:
    deferred(work).identity
except MarinTraceError as error:
    print(str(error).splitlines()[0].replace(" ", "_"))
print(deferred(work, identity="nb:work").identity)
"""
    told, explicit = printed("-c", code, cwd=tmp_path)
    assert told.startswith("work_has_no_stable_identity:_it_is_defined_where_no_other_process_can_find_it")
    assert explicit == "nb:work"


def plain(x: Any = None) -> Any: ...


class Owner:
    def method(self) -> None: ...

    @classmethod
    def alternative(cls) -> None: ...

    @staticmethod
    def static() -> None: ...

    class Inner:
        pass


def decorator(function: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


@decorator
def decorated(x: int) -> int:
    return x


@functools.lru_cache
def cached(x: int) -> int:
    return x


def closure_over(value: int) -> Callable[..., Any]:
    def inner() -> int:
        return value

    return inner


def without_closure() -> Callable[..., Any]:
    def inner() -> None: ...

    return inner


@pytest.mark.parametrize(
    ("function", "qualname"),
    [
        (plain, "plain"),
        (Owner, "Owner"),
        (Owner.method, "Owner.method"),
        (Owner.static, "Owner.static"),
        (Owner.Inner, "Owner.Inner"),
        (decorated, "decorated"),
        (cached, "cached"),
        (without_closure(), "without_closure.<locals>.inner"),
    ],
)
def test_an_identity_is_module_and_qualname(function: Any, qualname: str) -> None:
    assert function_identity(function) == f"{__name__}:{qualname}"


@pytest.mark.parametrize(
    ("function", "identity"), [(len, "builtins:len"), (str.upper, "builtins:str.upper"), (int, "builtins:int")]
)
def test_builtins_have_an_identity(function: Any, identity: str) -> None:
    assert function_identity(function) == identity


@pytest.mark.parametrize(
    ("function", "why"),
    [(lambda: 1, "it is a lambda"), (closure_over(3), "it closes over values of the function that made it")],
)
def test_a_function_that_no_name_leads_back_to_is_refused_unless_named(
    function: Any, why: str, at: Callable[[str], str]
) -> None:
    @step
    def body(**options: Any) -> StepRef:
        return deferred(function, **options)()

    with pytest.raises(UnstableValueError, match=why) as error:
        body()
    assert "test_functions.py:" in str(error.value)
    assert 'deferred(fn, identity="my_module:my_fn")' in str(error.value).split("hint: ")[1]
    assert body(identity="my_module:my_fn").node.calls[0].function.identity == "my_module:my_fn"


def test_partials_and_methods_are_a_plain_function_and_what_is_bound() -> None:
    owner = Owner()
    assert unwrapped(functools.partial(functools.partial(plain, 1), 2, x=3)) == unwrapped(
        functools.partial(plain, 1, 2, x=3)
    )
    assert unwrapped(owner.method).function is Owner.method
    assert unwrapped(owner.method).args == (owner,)
    assert unwrapped(Owner.alternative).args == (Owner,)
    assert unwrapped(plain).args == ()


def test_the_module_of_a_test_is_its_own() -> None:
    assert module_of(plain) == __name__
    assert module_of(len) == "builtins"


ANNOTATED = """
from marin_trace.ir.encoders import known_encoding

class Own: ...

print(known_encoding(list[Own]))
"""


def test_an_annotation_of_the_main_script_is_the_imported_one(tmp_path: Path) -> None:
    script = written(tmp_path / "script.py", ANNOTATED)
    assert printed(str(script), cwd=tmp_path) == ["annotation", "list[script.Own]"]
    assert printed("-c", "import script", cwd=tmp_path) == ["annotation", "list[script.Own]"]
