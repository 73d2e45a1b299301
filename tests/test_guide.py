"""The examples of the migration guide, as written.

Imports of ``marin.execution`` mean ``marin_trace``, and library modules are fakes. Each block is a module of its own;
what it takes from its surroundings (a config class, a step of another file) is put there beforehand. Blocks with steps
are traced, and what has work to do is run.
"""

import sys
import types
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import marin_trace
from marin_trace import Graph, StepRef, deferred, lower, output, step, trace
from marin_trace.runtime.step_runner import StepRunner

LAYER_1 = '''
@dataclass(frozen=True)
class DownloadConfig:
    hf_dataset_id: str
    revision: str
    gcs_output_path: str  # Required, no default!
    wait_for_completion: bool = True

def download_hf(config: DownloadConfig) -> None:
    """Download a HuggingFace dataset to the specified path."""
    # ... implementation using concrete paths ...
'''

LAYER_2 = '''
# experiments/steps/tokenize.py

from marin.execution import StepRef, deferred, output, step
from marin.processing.tokenize.tokenize import TokenizeConfig
from marin.processing.tokenize.tokenize import tokenize as _tokenize

# Mark library function as deferred
tokenize = deferred(_tokenize)

@step(name="{name}")
def tokenize_dataset(
    name: str,
    input_dataset: StepRef,
    tokenizer: str,
) -> StepRef:
    """Tokenize a dataset from another step's output."""
    return tokenize(TokenizeConfig(
        train_paths=[input_dataset],
        cache_path=output(),
        tokenizer=tokenizer,
    ))
'''

LAYER_3 = '''
# experiments/speedrun/llama_75m/llama_75m.py

from marin.execution import executor_main, step
from marin.speedrun.speedrun import default_speedrun

@step(name="speedrun/llama_75m/all")
def run_llama_75m():
    """Entry point for Llama 75M training."""
    default_speedrun("llama_75m", speedrun_config)

if __name__ == "__main__":
    executor_main(steps=[run_llama_75m()], description="75M Llama model")
'''

DEFERRED = """
from marin.execution import deferred
from marin.some_library import do_work as _do_work

do_work = deferred(_do_work)

# During tracing: returns DeferredCall, doesn't execute
# During execution: calls the actual function
"""

STEP = """
from marin.execution import step, output

@step(name="my_step/{name}")
def my_step(name: str, input_data: StepRef):
    return some_deferred_fn(Config(
        input_path=input_data,      # StepRef - dependency tracked automatically
        output_path=output(),       # This step's output path
    ))
"""

REQUIRED_PARAMETER = """
@dataclass
class DownloadConfig:
    gcs_output_path: str  # Required, no default
"""

CONCRETE_TYPES = """
@dataclass
class ConvertCheckpointStepConfig:
    checkpoint_path: str
    output_path: str  # Required
"""

DISCOVERED_DEPENDENCIES = """
@step(name="all")
def run_all():
    # Just call the leaf steps - tracer finds dependencies automatically
    gsm8k_convert_dolma()    # This internally calls gsm8k_raw()
    math_convert_dolma()     # This internally calls math_raw()
    # ...
"""

STEP_PATTERN = """
some_function = deferred(_some_function)

@step(name="my_step")
def my_step(input_step: StepRef):
    return some_function(SomeConfig(
        input_path=input_step,
        output_path=output(),
    ))
"""

PACKAGE_IMPORT = """
from marin.execution import step, deferred, output, versioned
"""

# The guide elides the other arguments.
AFTER_MIGRATION = '''
@step(name="experiment/foo/all")
def run_foo():
    """Entry point for foo experiment."""
    default_train(name="foo")

if __name__ == "__main__":
    executor_main(steps=[run_foo()], description="Foo experiment")
'''


@dataclass(frozen=True)
class PathsConfig:
    """Stands for the configs of the guide's libraries."""

    input_path: str
    output_path: str


@dataclass(frozen=True)
class TokenizeConfig:
    train_paths: list[str]
    cache_path: str
    tokenizer: str
    options: dict[str, Any] = field(default_factory=dict)


def written(path: str, text: str) -> str:
    Path(path).mkdir(parents=True, exist_ok=True)
    (Path(path) / "file.txt").write_text(text)
    return text


def read(path: str) -> str:
    return (Path(path) / "file.txt").read_text()


def fake_tokenize(config: TokenizeConfig) -> str:
    return written(config.cache_path, f"{config.tokenizer} of {[read(path) for path in config.train_paths]}")


def fake_convert(config: PathsConfig) -> str:
    return written(config.output_path, f"converted {read(config.input_path)}")


def fake_train(path: str, recipe: Any) -> str:
    return written(path, f"model of {recipe}")


def fake_evaluate(path: str, model: str) -> str:
    return written(path, f"evaluation of {read(model)}")


@step(name="raw/{name}")
def raw(name: str = "stdlib") -> StepRef:
    return deferred(written)(output(), f"raw {name}")


@step(name="train/{name}/all")
def default_train(name: str, recipe: Any = None) -> StepRef:
    model = step(lambda: deferred(fake_train)(output(), recipe)).with_options(name=f"train/{name}")()
    step(lambda: deferred(fake_evaluate)(output(), model)).with_options(name=f"evaluate/{name}")()
    return model


@step(name="dolma/{name}")
def convert_dolma(name: str) -> StepRef:
    return deferred(fake_convert)(PathsConfig(raw(name), output()))  # type: ignore[arg-type]


def module_with(name: str, **values: Any) -> types.ModuleType:
    module = types.ModuleType(name)
    vars(module).update(values)
    return module


@pytest.fixture(autouse=True)
def libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    """The modules that the guide's blocks import."""
    modules = [
        module_with("marin"),
        module_with("marin.execution", **{name: getattr(marin_trace, name) for name in marin_trace.__all__}),
        *(module_with(name) for name in ("marin.processing", "marin.processing.tokenize", "marin.speedrun")),
        module_with("marin.processing.tokenize.tokenize", TokenizeConfig=TokenizeConfig, tokenize=fake_tokenize),
        module_with("marin.speedrun.speedrun", default_speedrun=default_train),
        module_with("marin.some_library", do_work=written),
    ]
    for module in modules:
        monkeypatch.setitem(sys.modules, module.__name__, module)


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Executes a block of the guide as a module, and gives the module."""

    def execute(source: str, *, name: str = "guide_block", **surroundings: Any) -> types.ModuleType:
        path = tmp_path / "guide_block.py"
        path.write_text(source)
        module = module_with(name, __file__=str(path), **surroundings)
        if name != "__main__":
            monkeypatch.setitem(sys.modules, name, module)
        exec(compile(source, str(path), "exec", dont_inherit=True), vars(module))
        return module

    return execute


def ran(graph: Graph) -> dict[str, str]:
    """Runs a graph, and gives what each step wrote."""
    specs = lower(graph)
    StepRunner().run(specs)
    return {spec.name: read(spec.output_path) for spec in specs}


def test_layer_1_is_plain_python(block: Any) -> None:
    module = block(LAYER_1, dataclass=dataclass)
    config = module.DownloadConfig("id", "rev", "/out")

    @step
    def download() -> StepRef:
        return deferred(module.download_hf)(module.DownloadConfig("id", "rev", output()))

    assert module.download_hf(config) is None
    printed = "hf_dataset_id='id', revision='rev', gcs_output_path=self, wait_for_completion=True"
    assert str(trace(download)) == f"a : download = download_hf(DownloadConfig({printed}))"
    StepRunner().run(lower(trace(download)))


def test_layer_2_wires_a_library_function(block: Any) -> None:
    module = block(LAYER_2)
    graph = trace(lambda: module.tokenize_dataset("tokenized/x", raw(), "llama3"))
    assert [node.name for node in graph.nodes] == ["raw/stdlib", "tokenized/x"]
    assert ran(graph) == {"raw/stdlib": "raw stdlib", "tokenized/x": "llama3 of ['raw stdlib']"}


def test_layer_3_runs_as_a_script(block: Any, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    monkeypatch.setattr(sys, "argv", ["llama_75m.py"])
    block(LAYER_3, name="__main__", speedrun_config={"lr": 0.1})
    outputs = sorted(str(path.relative_to(prefix)) for path in Path(prefix).rglob("file.txt"))
    assert [path.rsplit("-", 1)[0] for path in outputs] == ["evaluate/llama_75m", "train/llama_75m"]


def test_layer_3_imported_traces_nothing_and_loses_nothing(block: Any, prefix: str) -> None:
    module = block(LAYER_3, speedrun_config={"lr": 0.1})
    graph = trace(module.run_llama_75m)
    assert [node.name for node in graph.nodes] == ["train/llama_75m", "evaluate/llama_75m"]
    assert [group.name for group in graph.groups] == ["train/llama_75m/all", "speedrun/llama_75m/all"]
    assert list(Path(prefix).iterdir()) == []


def test_a_deferred_function_is_recorded_during_tracing_and_called_otherwise(block: Any, tmp_path: Path) -> None:
    module = block(DEFERRED)

    @step
    def body() -> StepRef:
        return module.do_work(output(), "text")

    graph = trace(body)
    assert [call.function.label for call in graph.nodes[0].calls] == ["written"]
    assert ran(graph) == {"body": "text"}
    assert module.do_work(str(tmp_path / "eager"), "eager") == "eager"


def test_the_step_decorator_tracks_dependencies(block: Any) -> None:
    module = block(STEP, StepRef=StepRef, Config=PathsConfig, some_deferred_fn=deferred(fake_convert))
    graph = trace(lambda: module.my_step("x", raw()))
    assert [(edge.kind.value, edge.producer.name) for edge in graph.nodes[-1].edges] == [("data", "raw/stdlib")]
    assert ran(graph)["my_step/x"] == "converted raw stdlib"


def test_a_step_ref_supports_what_the_guide_lists() -> None:
    step_ref = raw()
    assert repr(step_ref / "subdir" / "file.txt") == "<StepRef raw/stdlib/subdir/file.txt>"
    assert repr(step_ref.nonblocking()) == "<StepRef raw/stdlib (nonblocking)>"
    [spec] = lower(step_ref.with_output_path("custom/path"), prefix="/data")
    assert spec.output_path == "/data/custom/path"


def test_a_library_config_requires_its_paths(block: Any) -> None:
    config = block(REQUIRED_PARAMETER, dataclass=dataclass).DownloadConfig
    with pytest.raises(TypeError, match="gcs_output_path"):
        config()
    module = block(CONCRETE_TYPES, dataclass=dataclass)

    @step
    def convert(checkpoint: StepRef) -> StepRef:
        return deferred(repr)(module.ConvertCheckpointStepConfig(checkpoint, output()))

    printed = str(trace(lambda: convert(raw() / "ckpt"))).split("\n")[1]
    assert printed == "b : convert    = repr(ConvertCheckpointStepConfig(checkpoint_path=a/'ckpt', output_path=self))"


def test_the_tracer_discovers_dependencies(block: Any) -> None:
    leaves = {f"{name}_convert_dolma": (lambda name=name: convert_dolma(name)) for name in ("gsm8k", "math")}
    graph = trace(block(DISCOVERED_DEPENDENCIES, step=step, **leaves).run_all)
    assert [node.name for node in graph.nodes] == ["raw/gsm8k", "dolma/gsm8k", "raw/math", "dolma/math"]
    assert ran(graph)["dolma/math"] == "converted raw math"


def test_the_step_pattern_replaces_the_constructor(block: Any) -> None:
    names = {"step": step, "deferred": deferred, "output": output, "StepRef": StepRef}
    module = block(STEP_PATTERN, _some_function=fake_convert, SomeConfig=PathsConfig, **names)
    assert ran(trace(lambda: module.my_step(raw())))["my_step"] == "converted raw stdlib"


def test_the_names_come_from_the_package(block: Any) -> None:
    module = block(PACKAGE_IMPORT)
    assert module.step is step
    assert module.versioned(3) == 3


def test_a_top_level_call_becomes_an_entry_step(block: Any, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    names = {"step": step, "executor_main": marin_trace.executor_main, "default_train": default_train}
    monkeypatch.setattr(sys, "argv", ["foo.py", "--dry_run"])
    block(AFTER_MIGRATION, name="__main__", **names)
    assert list(Path(prefix).rglob("*")) == []
    monkeypatch.setattr(sys, "argv", ["foo.py"])
    block(AFTER_MIGRATION, name="__main__", **names)
    assert len(list(Path(prefix).rglob("file.txt"))) == 2
