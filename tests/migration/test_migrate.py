"""Laws of ``marin-trace migrate``: what it rewrites, what it leaves, and what it never does."""

import ast
import os
import stat
import textwrap
from pathlib import Path

import pytest

from marin_trace.errors import FlagError, StorageError
from marin_trace.migration.migrate import Migrated, migrate_files
from marin_trace.migration.names import Packages
from marin_trace.migration.sources import Source, python_files, read_source, write_source

IMPORTS = """\
from marin.execution.executor import ExecutorStep, InputName, executor_main, output_path_of, this_output_path, versioned
from marin.lib import Config, work

"""


def migrated(source: str, directory: Path, *, name: str = "exp.py", packages: Packages | None = None) -> Migrated:
    path = directory / "experiments" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    [file] = migrate_files([path], packages=packages)
    ast.parse(file.text)
    return file


def body_of(source: str, directory: Path, *, imports: str = IMPORTS) -> str:
    """What becomes of the lines after the imports."""
    file = migrated(imports + textwrap.dedent(source), directory)
    lines = file.text.split("\n")
    last = max(i for i, line in enumerate(lines) if line.startswith(("from ", "import ", "work = deferred")))
    return "\n".join(lines[last + 1 :]).strip() + "\n"


CASES = {
    "a constructor becomes a step function": (
        """
        # What we read.
        raw = ExecutorStep(
            name="raw/web",
            fn=work,  # the library's
            config=Config(
                # A comment inside.
                size=3,
                out=this_output_path(),
            ),
            description="Raw {text}",
        )
        """,
        """
        # What we read.
        @step(name="raw/web", description="Raw {{text}}")
        def raw() -> StepRef:
            # the library's
            return work(Config(
                # A comment inside.
                size=3,
                out=output(),
            ))
        """,
    ),
    "references are refs": (
        """
        raw = ExecutorStep(name="raw", fn=work, config=None)

        def config(ref: ExecutorStep | InputName | str | None) -> "InputName | str":
            return Config(
                raw / "a/", raw.cd("b"), (raw / "c").nonblocking(), output_path_of(raw), output_path_of(raw, "d"),
                InputName.hardcoded("e"), InputName(raw, "f"), InputName(step=None, name="g"),
                isinstance(ref, (ExecutorStep, InputName)),
                this_output_path("h"), output_path_of(raw, "i") / "j", output_path_of(raw, "k").nonblocking(),
            )
        """,
        """
        @step(name="raw")
        def raw() -> StepRef:
            return work(None)


        def config(ref: StepRef | str | None) -> "StepRef | str":
            return Config(
                raw() / "a", raw().cd("b"), (raw() / "c").nonblocking(), raw(), raw() / "d",
                StepRef.hardcoded("e"), raw() / "f", StepRef.hardcoded("g"),
                isinstance(ref, StepRef),
                output() / "h", raw() / "i" / "j", (raw() / "k").nonblocking(),
            )
        """,
    ),
    "options of every kind": (
        """
        step_a = ExecutorStep("a", work, Config(out=this_output_path()), None, "old/a", pip_dependency_groups=["x"])
        step_b = ExecutorStep(name="b", fn=work, config=Config(out=this_output_path()), resources=TPU, description=None)
        step_c = ExecutorStep(name="c", fn=work, config=Config(out=this_output_path())).with_output_path("old/c")
        """,
        """
        @step(name="a", pip_dependency_groups=["x"], override_output_path="old/a")
        def step_a() -> StepRef:
            return work(Config(out=output()))


        @step(name="b", resources=TPU)
        def step_b() -> StepRef:
            return work(Config(out=output()))


        @step(name="c", override_output_path="old/c")
        def step_c() -> StepRef:
            return work(Config(out=output()))
        """,
    ),
    "a function that returns a constructor becomes the step": (
        """
        def made(name: str, data: ExecutorStep, tpu=None, size=3) -> ExecutorStep:
            \"\"\"Makes one.\"\"\"
            config = Config(data / "train", size=size, out=this_output_path())
            return ExecutorStep(
                name=os.path.join("made", name), fn=work, config=config, description=f"Of {size:03d}", resources=tpu
            )
        """,
        """
        @step(name="made/{name}", description="Of {size:03d}", resources=lambda tpu: tpu)
        def made(name: str, data: StepRef, tpu=None, size=3) -> StepRef:
            \"\"\"Makes one.\"\"\"
            config = Config(data / "train", size=size, out=output())
            return work(config)
        """,
    ),
    "a name that no template gives is computed by the caller": (
        """
        def made(name: str, sizes):
            name = name.lower()
            out = this_output_path()
            return ExecutorStep(name=name, fn=work, config=Config(out=out, size=sizes[0]))
        """,
        """
        def made(name: str, sizes):
            name = name.lower()

            @step(name=name)
            def work_step() -> StepRef:
                out = output()
                return work(Config(out=out, size=sizes[0]))

            return work_step()
        """,
    ),
    "a loop over configs": (
        """
        runs = []
        for size in (1, 2):
            config = Config(size=size, out=this_output_path())
            run = ExecutorStep(name=f"run-{size:.1f}", fn=work, config=config)
            runs.append(run)

        if __name__ == "__main__":
            executor_main(steps=runs)
        """,
        """
        @step(name="run-{size:.1f}")
        def run_step(size) -> StepRef:
            config = Config(size=size, out=output())
            return work(config)


        @step(name="exp/all")
        def run_exp():
            \"\"\"Entry step of exp.\"\"\"
            runs = []
            for size in (1, 2):
                run = run_step(size)
                runs.append(run)


        if __name__ == "__main__":
            executor_main(steps=[run_exp()])
        """,
    ),
    "a name in a loop that no template gives": (
        """
        if __name__ == "__main__":
            runs = {
                name: ExecutorStep(name=name.lower(), fn=work, config=Config(name, this_output_path()))
                for name in NAMES
            }
            executor_main(steps=list(runs.values()), description="All of them.")
        """,
        """
        @step(name="{step_name}")
        def work_step(step_name, name) -> StepRef:
            return work(Config(name, output()))


        @step(name="exp/all")
        def run_exp():
            \"\"\"All of them.\"\"\"
            for name in NAMES:
                work_step(name.lower(), name)


        if __name__ == "__main__":
            executor_main(steps=[run_exp()], description="All of them.")
        """,
    ),
    "what is not asked for is not called by the entry": (
        """
        used = default_train("used", 1)
        unused = default_train("unused", used)
        tokens = default_tokenize("x")

        def helper():
            return tokens / "train"

        if __name__ == "__main__":
            executor_main(steps=[used, tokens])
        """,
        """
        @step(name="exp/used")
        def used() -> StepRef:
            return default_train("used", 1)


        @step(name="exp/unused")
        def unused() -> StepRef:
            return default_train("unused", used())


        @step(name="exp/tokens")
        def tokens() -> StepRef:
            return default_tokenize("x")


        def helper():
            return tokens() / "train"


        @step(name="exp/all")
        def run_exp():
            \"\"\"Entry step of exp.\"\"\"
            used()
            tokens()


        if __name__ == "__main__":
            executor_main(steps=[run_exp()])
        """,
    ),
    "a mapping of which single items are read holds functions": (
        """
        tokens = {"web": default_tokenize("web"), "code": raw}

        raw = ExecutorStep(name="raw", fn=work, config=None)
        models = {name: default_train(name, tokens[name]) for name in ("web", "code")}
        extra = default_train("extra", tokens["web"])
        everything = default_train("all", tokens)
        shortest = min(tokens)

        def model(name):
            return models[name]
        """,
        """
        tokens = {"web": lambda: default_tokenize("web"), "code": raw}


        @step(name="raw")
        def raw() -> StepRef:
            return work(None)


        models = {name: lambda name=name: default_train(name, tokens[name]()) for name in ("web", "code")}


        @step(name="exp/extra")
        def extra() -> StepRef:
            return default_train("extra", tokens["web"]())


        @step(name="exp/everything")
        def everything() -> StepRef:
            return default_train("all", {key: make() for key, make in tokens.items()})


        def shortest():
            return min({key: make() for key, make in tokens.items()})


        def model(name):
            return models[name]()
        """,
    ),
    "a name that is bound again later keeps its value": (
        """
        size = 1
        small = ExecutorStep(name=f"s{size}", fn=work, config=Config(size, this_output_path()))
        size = 2
        large = ExecutorStep(name="large", fn=work, config=replace(small.config, size=size))
        """,
        """
        size = 1


        def small_config(size=size):
            return Config(size, output())


        @step(name=f"s{size}")
        def small(size=size) -> StepRef:
            return work(small_config())


        size = 2


        @step(name="large")
        def large() -> StepRef:
            return work(replace(small_config(), size=size))
        """,
    ),
    "types with arguments, and names for types": (
        """
        Tokens = ExecutorStep[Config]
        KINDS = (ExecutorStep, InputName)

        def kept(steps: dict[str, Tokens], more: "ExecutorStep[Config] | None") -> list[ExecutorStep[Config]]:
            return [cast("ExecutorStep[dict[str, int]]", one) for one in steps.values() if isinstance(one, KINDS)]

        raw = ExecutorStep[Config](name="raw", fn=work, config=None)
        """,
        """
        Tokens = StepRef
        KINDS = (StepRef,)

        def kept(steps: dict[str, Tokens], more: "StepRef | None") -> list[StepRef]:
            return [cast(StepRef, one) for one in steps.values() if isinstance(one, KINDS)]


        @step(name="raw")
        def raw() -> StepRef:
            return work(None)
        """,
    ),
    "another path for a step": (
        """
        raw = ExecutorStep(name="raw", fn=work, config=None)

        def moved(path):
            return replace(raw, override_output_path=path), replace(raw / "x", override_output_path="kept")
        """,
        """
        @step(name="raw")
        def raw() -> StepRef:
            return work(None)


        def moved(path):
            return raw().with_output_path(path), (raw() / "x").with_output_path("kept")
        """,
    ),
    "what is joined behind a name that may end in a slash is computed where it was": (
        """
        def made(base="tokenized/", *, files=("a", "b")):
            steps = {}
            for file in files:
                step = ExecutorStep(
                    name=os.path.join(base, "web", file),
                    fn=work,
                    config=Config([raw / part for part in file.split("-")], this_output_path()),
                )
                steps[file] = step.with_output_path(f"kept/{file}") if file == "a" else step
            return steps
        """,
        """
        def made(base="tokenized/", *, files=("a", "b")):
            steps = {}

            @marin_step(name="{step_name}")
            def work_step(step_name, file) -> StepRef:
                return work(Config([raw / part for part in file.split("-")], output()))

            for file in files:
                step = work_step(os.path.join(base, "web", file), file)
                steps[file] = step.with_output_path(f"kept/{file}") if file == "a" else step
            return steps
        """,
    ),
    "a description of several lines, with braces": (
        """
        raw = ExecutorStep("raw", work, None, \"\"\"Of {any}
        kind.\"\"\")
        """,
        """
        @step(name="raw", description='Of {{any}}\\nkind.')
        def raw() -> StepRef:
            return work(None)
        """,
    ),
    "several statements on a line": (
        """
        raw = ExecutorStep("raw", work, None); size = 3; more = ExecutorStep("more", work, Config(raw, size))
        def plain(): return 1
        def made(n): return ExecutorStep(name=n, fn=work, config=Config(n, this_output_path()))

        if __name__ == "__main__": a = made("a"); executor_main(steps=[a, more])  # both
        """,
        """
        @step(name="raw")
        def raw() -> StepRef:
            return work(None)


        size = 3


        @step(name="more")
        def more() -> StepRef:
            return work(Config(raw(), size))


        def plain(): return 1
        @step(name="{n}")
        def made(n) -> StepRef:
            return work(Config(n, output()))


        @step(name="exp/all")
        def run_exp():
            \"\"\"Entry step of exp.\"\"\"
            made("a")
            more()


        if __name__ == "__main__":
            executor_main(steps=[run_exp()])  # both
        """,
    ),
    "comments in the list of steps stay with what they are about": (
        """
        tokens = default_tokenize("x")
        model = default_train("m", tokens)

        if __name__ == "__main__":
            executor_main(
                steps=[  # all
                    # first
                    tokens,
                    model,  # then
                    # evaluated
                    default_eval(model),
                ]
            )
        """,
        """
        @step(name="exp/all")
        def run_exp():
            \"\"\"Entry step of exp.\"\"\"
            # first
            tokens = default_tokenize("x")
            # then
            model = default_train("m", tokens)
            # all
            # evaluated
            default_eval(model)


        if __name__ == "__main__":
            executor_main(
                steps=[run_exp()]
            )
        """,
    ),
    "a default that is a step is made when the function is called": (
        """
        tokens = ExecutorStep(name="tokens", fn=work, config=None)

        def model(name: str, data: ExecutorStep = tokens, *, more=(tokens / "x", 3)) -> ExecutorStep:
            \"\"\"Trains.\"\"\"
            return default_train(name, data, more)

        def optional(data=tokens):
            return None if data is None else default_train("m", data)
        """,
        """
        @step(name="tokens")
        def tokens() -> StepRef:
            return work(None)


        def model(name: str, data: StepRef | None = None, *, more=None) -> StepRef:
            \"\"\"Trains.\"\"\"
            if data is None:
                data = tokens()
            if more is None:
                more = (tokens() / "x", 3)
            return default_train(name, data, more)

        # MT003: tokens(...) makes a step when the module is imported
        def optional(data=tokens()):
            return None if data is None else default_train("m", data)
        """,
    ),
    "a list of which single items are read holds functions": (
        """
        models = [default_train(f"m-{lr}", lr) for lr in (1, 2)]
        pair = [raw, default_train("p", 3)]
        raw = ExecutorStep(name="raw", fn=work, config=models[0] / "x")
        best = default_eval(pair[-1])
        count = len(models)

        def later():
            return models[1:], best, pair

        if __name__ == "__main__":
            executor_main(steps=[*models, raw, default_eval(models[1])])
        """,
        """
        models = [lambda lr=lr: default_train(f"m-{lr}", lr) for lr in (1, 2)]
        pair = [raw, lambda: default_train("p", 3)]


        @step(name="raw")
        def raw() -> StepRef:
            return work(models[0]() / "x")


        @step(name="exp/best")
        def best() -> StepRef:
            return default_eval(pair[-1]())


        def count():
            return len(models)


        def later():
            return [make() for make in models[1:]], best(), [make() for make in pair]


        @step(name="exp/all")
        def run_exp():
            \"\"\"Entry step of exp.\"\"\"
            for make in models:
                make()
            raw()
            default_eval(models[1]())


        if __name__ == "__main__":
            executor_main(steps=[run_exp()])
        """,
    ),
    "an entry keeps what it needs from around it": (
        """
        def main(argv):
            flags = parse(argv)
            if flags.dry:
                return
            model = default_train("m", flags.size)
            with opened(flags) as log:
                executor_main(steps=[model, default_eval(model, log)])

        if __name__ == "__main__":
            main(sys.argv)
        """,
        """
        @step(name="exp/all")
        def run_exp(flags, log):
            \"\"\"Entry step of exp.\"\"\"
            model = default_train("m", flags.size)
            default_eval(model, log)


        def main(argv):
            flags = parse(argv)
            if flags.dry:
                return
            with opened(flags) as log:
                executor_main(steps=[run_exp(flags, log)])

        if __name__ == "__main__":
            main(sys.argv)
        """,
    ),
}

DEFAULTS = (
    "import os\nimport sys\nfrom dataclasses import replace\nfrom typing import cast\n"
    "from experiments.defaults import default_eval, default_tokenize, default_train\n"
)


@pytest.mark.parametrize("case", CASES)
def test_what_becomes_of(case: str, tmp_path: Path) -> None:
    before, after = CASES[case]
    assert body_of(before, tmp_path, imports=IMPORTS.strip() + "\n" + DEFAULTS) == textwrap.dedent(after).strip() + "\n"


MAIN = "if __name__ == '__main__':\n    executor_main(steps=runs)"

LEFT = {
    "MT005": [
        "x = ExecutorStep(name='x', fn=lambda config: None, config=Config(this_output_path()))",
        "x = ExecutorStep(**given)",
        "def make():\n    def inner(config): ...\n    return ExecutorStep('x', inner, Config(this_output_path()))",
        "def make(config):\n    return ExecutorStep('x', work, config)\na = make(Config(this_output_path()))\n",
        # In a step's body the config would be made of what the name is by then.
        "def make(n):\n    c = Config(n, this_output_path())\n    n = n + 'x'\n    return ExecutorStep(n, work, c)",
        "def make(n):\n    c = Config(n, this_output_path())\n    n.append(1)\n    return ExecutorStep(n[0], work, c)",
    ],
    "MT013": [
        "x = replace(default_train('a', 1).config, size=1)",
        "x = get_executor_step(3)",
        "def f(x):\n    match x:\n        case ExecutorStep(config=Config(size)):\n            return size",
        "def f(x):\n    return 1 if isinstance(x, ExecutorStep) else 2 if isinstance(x, InputName) else 3",
        "def f(x: ExecutorStep):\n    return replace(x, name='y')",
        "def f(x: InputName):\n    return x.step",
        "a = ExecutorStep('a', work, None)\nb = replace(a, name='b')",
    ],
    "MT007": [
        f"a, *b = [default_train(n, 1) for n in 'abc']\nmodels = [a, *b]\nruns = models[:2]\n{MAIN}",
        "from experiments.other import model\nif __name__ == '__main__':\n    executor_main(steps=[model])",
        f"def make():\n    return [default_train(n, 1) for n in 'ab']\n{MAIN.replace('runs', '[make()[0]]')}",
        # One of them is wanted: an entry step that makes the mapping would run both.
        (
            "def one(d, n):\n    return default_train(n, d[n])\ndef main():\n"
            "    d = {n: default_tokenize(n) for n in 'ab'}\n    m = one(d, 'a')\n    executor_main(steps=[m])"
        ),
    ],
    "MT003": [
        "a, b = default_train('a', 1), 3\nprint(a)",
        (
            "def one(d, n):\n    return default_train(n, d[n])\n"
            f"d = {{n: default_tokenize(n) for n in 'ab'}}\nruns = [one(d, 'a')]\n{MAIN}"
        ),
        # What it is made of changes, and a function reads it in the end.
        f"size = [1]\na = default_train('a', size)\nsize += [2]\ndef f():\n    return a\nruns = [a]\n{MAIN}",
    ],
    "MT004": [
        # Under its condition the name would be another in the step's body.
        (
            "def make(n, flag):\n    c = Config(n, this_output_path())\n    if flag:\n        n += 'x'\n"
            "        c = Config(n, this_output_path())\n    return ExecutorStep(n, work, c)\n"
            f"runs = [make('a', 1), default_train('b', 1)]\n{MAIN}"
        ),
        f"runs = []\nfor n in 'ab':\n    runs.append(default_train(n, 1))\n{MAIN.replace('runs', 'runs[:1]')}",
        # An entry step that calls the second alone would lose the first.
        f"from experiments.other import model\nruns = [model, default_train('a', 1)]\n{MAIN}",
        f"a, b = default_train('a', 1), 3\ndef f():\n    return a\nruns = [a, default_train('c', 1)]\n{MAIN}",
        f"def make():\n    return ExecutorStep('x', lambda c: None, 1)\nruns = [default_train('a', 1), make()]\n{MAIN}",
    ],
}


@pytest.mark.parametrize(("code", "source"), [(code, source) for code, sources in LEFT.items() for source in sources])
def test_what_cannot_be_done_safely_is_left_with_a_remark(code: str, source: str, tmp_path: Path) -> None:
    imports = IMPORTS.replace("versioned", "versioned, get_executor_step") + DEFAULTS
    file = migrated(f"{imports}{source}\n", tmp_path)
    lines = file.text.split("\n")
    findings = [finding for finding in file.left if finding.code == code]
    assert findings
    for finding in findings:
        above = lines[: finding.line - 1]
        assert any(line.strip().startswith(f"# {code}: ") for line in above[-4:])
    file.source.path.write_text(file.text)
    [again] = migrate_files([file.source.path])
    assert again.text == file.text


def test_why_a_constructor_was_left_is_told(tmp_path: Path) -> None:
    source = IMPORTS + "x = ExecutorStep(name='x', fn=lambda c: None, config=Config(this_output_path()))\n"
    file = migrated(source, tmp_path)
    [finding] = [finding for finding in file.left if finding.code == "MT005"]
    assert finding.message.endswith(
        "ExecutorStep: its function is a lambda, which has no name that another process would find"
    )
    assert f"# MT005: {finding.message}\n" in file.text


def test_comments_of_imports_stay(tmp_path: Path) -> None:
    source = (
        "from marin.execution.executor import (  # noqa: E501\n    ExecutorStep,  # steps\n    this_output_path,\n)\n"
        "import os\n# for the run\nfrom marin.execution.executor import executor_main  # the run\n"
        "x = ExecutorStep(name='x', fn=os.stat, config=this_output_path())\nexecutor_main(steps=[x])\n"
    )
    text = migrated(source, tmp_path).text
    assert text.startswith("# steps\n# for the run\n# the run\nfrom marin_trace import StepRef, deferred")


def test_what_is_left_in_the_older_style_comes_from_the_bridge(tmp_path: Path) -> None:
    source = IMPORTS + "x = ExecutorStep(name='x', fn=lambda c: None, config=Config(this_output_path()))\n"
    file = migrated(source, tmp_path)
    assert "from marin_trace.legacy import ExecutorStep, this_output_path\n" in file.text
    assert "config=Config(this_output_path())" in file.text


def test_a_remark_goes_when_what_it_was_about_has_gone(tmp_path: Path) -> None:
    source = "import os\n# MT003: an older remark\nx = 1\ntext = '''\n# MT003: text\n'''\n"
    assert migrated(source, tmp_path).text == source.replace("# MT003: an older remark\n", "")


LIBRARY = '''\
"""A library."""

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from marin.execution.executor import THIS_OUTPUT_PATH, InputName, this_output_path

if TYPE_CHECKING:
    from marin.execution.executor import ExecutorStep


@dataclass(frozen=True)
class Config:
    """What to do."""

    size: int = 3
    """How large."""

    # Where to.
    output_path: str = THIS_OUTPUT_PATH  # required by now
    """A directory."""

    data: "list[InputName | str]"
    log: str = field(default_factory=this_output_path)
    model: "ExecutorStep | None" = None


@dataclass(kw_only=True)
class Plain:
    size: int = 3
    out: str = this_output_path()


def work(config: Config, *, out: str = THIS_OUTPUT_PATH) -> InputName: ...
'''

LIBRARY_AFTER = '''\
"""A library."""

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """What to do."""

    # Where to.
    output_path: str  # required by now
    """A directory."""

    data: "list[str]"

    log: str
    size: int = 3
    """How large."""
    model: "str | None" = None


@dataclass(kw_only=True)
class Plain:
    size: int = 3
    out: str


def work(config: Config, *, out: str) -> str: ...
'''


def test_library_code_takes_paths(tmp_path: Path) -> None:
    assert migrated(LIBRARY, tmp_path, name="lib/work.py").text == LIBRARY_AFTER


@pytest.mark.parametrize(
    ("head", "call"),
    [("class Config(Base):", ""), ("class Config:", "\nConfig('x', 3)\n")],
    ids=["a base that may have defaults", "a call that counts positions"],
)
def test_fields_keep_their_order_where_another_would_change_what_they_mean(
    head: str, call: str, tmp_path: Path
) -> None:
    source = (
        "from dataclasses import dataclass\nfrom elsewhere import Base\n"
        "from marin.execution.executor import THIS_OUTPUT_PATH\n"
        f"\n\n@dataclass\n{head}\n    name: str\n    size: int = 3\n    out: str = THIS_OUTPUT_PATH\n{call}"
    )
    file = migrated(source, tmp_path, name="lib/work.py")
    assert "out: str = THIS_OUTPUT_PATH" in file.text
    assert {finding.code for finding in file.left} == {"MT001", "MT002"}


def test_wiring_gives_a_config_the_path_that_was_its_default(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    library = tmp_path / "experiments" / "lib" / "work.py"
    library.parent.mkdir(parents=True)
    library.write_text(LIBRARY)
    wiring = tmp_path / "experiments" / "exp.py"
    wiring.write_text(
        "from marin.execution.executor import ExecutorStep\nfrom experiments.lib.work import Config, work\n\n"
        "x = ExecutorStep(name='x', fn=work, config=Config(data=[], output_path='here'))\n"
    )
    [_, file] = migrate_files([library, wiring])
    assert "Config(data=[], output_path='here', log=output())" in file.text


OWN_PATHS = """\
from dataclasses import dataclass, field
from typing import Generic, TypeVar
from marin.execution.executor import OutputName, this_output_path
T = TypeVar("T")

@dataclass
class Base(Generic[T]):
    name: str

@dataclass
class Config(Base[str]):
    size: int = 1
    out: str | OutputName = this_output_path("data")
    logs: str = field(default_factory=lambda: this_output_path("logs"))

@dataclass
class Odd:
    out: str = this_output_path("a" + "b")

class Plain:
    def __init__(self, out: str = this_output_path()): ...

def path_of(size: int, *, out: str = this_output_path("p")) -> str: ...
"""


def test_own_paths_that_were_defaults_are_given_with_what_comes_below_them(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    library = tmp_path / "experiments" / "lib" / "work.py"
    library.parent.mkdir(parents=True)
    library.write_text(OWN_PATHS)
    wiring = tmp_path / "experiments" / "exp.py"
    wiring.write_text(
        "from marin.execution.executor import ExecutorStep\nfrom experiments.lib.work import Config, path_of, work\n\n"
        "x = ExecutorStep(name='x', fn=work, config=[Config('x', size=3), Config('y', logs='z'), path_of(1)])\n"
    )
    [own, file] = migrate_files([library, wiring])
    assert 'Config(\'x\', size=3, out=output() / "data", logs=output() / "logs")' in file.text
    assert "Config('y', logs='z', out=output() / \"data\"), path_of(1, out=output() / \"p\")" in file.text
    assert "    out: str\n    logs: str\n    size: int = 1\n" in own.text
    assert {finding.code for finding in own.left} == {"MT001", "MT002"}
    assert 'out: str = this_output_path("a" + "b")' in own.text
    assert "def __init__(self, out: str = this_output_path()): ..." in own.text


def test_names_of_a_module_are_called_where_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("")
    steps = tmp_path / "experiments" / "steps.py"
    steps.parent.mkdir()
    steps.write_text(
        f"{IMPORTS}from experiments.defaults import default_tokenize\n"
        "raw = ExecutorStep(name='raw', fn=work, config=None)\n"
        "both = {'raw': raw, 'tokens': default_tokenize('t', raw)}\n"
        "mixture = Config(both)\nalias = raw\n"
    )
    user = tmp_path / "experiments" / "exp.py"
    user.write_text(
        "import experiments.steps\nimport experiments.steps as more\n"
        "from experiments.defaults import default_train\n"
        "from marin.execution.executor import executor_main\n"
        "model = default_train('m', more.both['tokens'], more.mixture, experiments.steps.alias / 'x', len(more.both))\n"
        "if __name__ == '__main__':\n    executor_main(steps=[model, more.raw])\n"
    )
    [_, file] = migrate_files([steps, user])
    assert (
        "default_train('m', more.both['tokens'](), more.mixture(), experiments.steps.alias() / 'x', len(more.both))"
        in file.text
    )
    assert "    more.raw()\n" in file.text
    assert not file.left


def test_names_that_a_module_has_for_itself_stay_its_own(tmp_path: Path) -> None:
    source = (
        IMPORTS + "for step in (1, 2):\n    output = step\n\nx = ExecutorStep('x', work, Config(this_output_path()))\n"
    )
    text = migrated(source, tmp_path).text
    assert "from marin_trace import output as marin_output\nfrom marin_trace import step as marin_step\n" in text
    assert "@marin_step(name=" in text
    assert "Config(marin_output())" in text


def test_the_packages_can_be_others(tmp_path: Path) -> None:
    source = IMPORTS + "x = ExecutorStep(name='x', fn=work, config=Config(this_output_path()))\n"
    guide = migrated(source, tmp_path, packages=Packages("marin.execution", "marin.execution")).text
    assert "from marin.execution import StepRef, deferred, output, step\n" in guide
    ours = migrated(
        source.replace("marin.execution", "our.old"), tmp_path, packages=Packages("our.old", "our.new")
    ).text
    assert "from our.new import StepRef, deferred, output, step\n" in ours


def test_a_file_without_anything_old_is_not_touched(tmp_path: Path) -> None:
    source = "import os\nfrom marin_trace import step   # unused\n\nx =  1 ;y = 2\n"
    file = migrated(source, tmp_path)
    assert file.text == source
    assert not file.is_changed


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_writing_keeps_encoding_newlines_and_mode(newline: str, encoding: str, tmp_path: Path) -> None:
    path = tmp_path / "exp.py"
    coding = "# coding: latin-1\n" if encoding == "latin-1" else ""
    text = f"{coding}name = 'ä'\n"
    path.write_bytes(text.replace("\n", newline).encode(encoding))
    path.chmod(0o750)
    source = read_source(path)
    assert source.text == text
    write_source(Source(path, source.text + "size = 3\n", source.encoding, source.newline))
    assert path.read_bytes() == (text + "size = 3\n").replace("\n", newline).encode(encoding)
    assert stat.S_IMODE(path.stat().st_mode) == 0o750
    assert os.listdir(tmp_path) == ["exp.py"]


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target.py", tmp_path / "link.py"
    target.write_text("x = 1\n")
    link.symlink_to(target)
    write_source(Source(link, "x = 2\n"))
    assert link.is_symlink()
    assert target.read_text() == "x = 2\n"


def test_a_file_that_cannot_be_written_is_as_it_was(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"^cannot write .*gone/exp\.py: No such file"):
        write_source(Source(tmp_path / "gone" / "exp.py", "x = 1\n"))
    path = tmp_path / "exp.py"
    path.write_text("x = 1\n")
    with pytest.raises(UnicodeEncodeError):
        write_source(Source(path, "x = 'λ'\n", "latin-1"))
    assert path.read_text() == "x = 1\n"
    assert os.listdir(tmp_path) == ["exp.py"]


def test_files_are_found_below_directories(tmp_path: Path) -> None:
    for name in ("b.py", "a.py", "notes.txt", ".hidden/x.py", "__pycache__/x.py", "deep/c.py", "venv/x.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    found = python_files([str(tmp_path), str(tmp_path / "a.py"), str(tmp_path / "notes.txt")])
    assert [path.name for path in found] == ["a.py", "b.py", "c.py", "notes.txt"]
    with pytest.raises(FlagError, match=r"nowhere is neither a file nor a directory"):
        python_files([str(tmp_path / "nowhere")])
