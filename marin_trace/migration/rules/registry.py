"""All rules in the order of their codes; MT001 to MT006 are the anti-patterns of the migration guide, by number."""

from typing import Final

from marin_trace.migration.findings import Rule
from marin_trace.migration.rules import entry, importing, layers, legacy, refs

RULES: Final = (
    Rule(
        "MT001",
        "output-path-default",
        "a field or parameter of library code defaults to a step's own output path",
        "A library function is then no plain function: it works only inside the executor, and who reads the config\n"
        "cannot tell where it writes. Fields without a default come first in a dataclass.",
        "@dataclass\nclass DownloadConfig:\n    revision: str = 'main'\n    output_path: str = THIS_OUTPUT_PATH",
        "@dataclass\nclass DownloadConfig:\n    output_path: str\n    revision: str = 'main'",
        layers.output_path_defaults,
    ),
    Rule(
        "MT002",
        "executor-in-library",
        "library code imports the executor",
        "Library code (lib/, experiments/lib/) takes plain paths and values, so that it can be called, tested and\n"
        "reused without a pipeline. Of marin_trace it may import marin_trace.io. An import that only annotations need\n"
        "goes under `if TYPE_CHECKING:`.",
        "from marin_trace import StepRef\n\n@dataclass\nclass ConvertConfig:\n    checkpoint: str | StepRef",
        "@dataclass\nclass ConvertConfig:\n    checkpoint: str",
        layers.library_imports,
    ),
    Rule(
        "MT003",
        "step-at-import",
        "a step is called when the module is imported",
        "Whoever imports the module for one name then builds its steps as well, with the settings of that moment.\n"
        "Steps are called in the body of an entry step; importing does nothing.",
        "model = default_train('tiny', tokens, recipe)",
        "@step(name='tiny/all')\ndef run_tiny():\n    default_train('tiny', tokens(), recipe)",
        importing.step_calls,
    ),
    Rule(
        "MT004",
        "explicit-step-list",
        "steps are listed by hand",
        "A list goes out of date when a step is added, and says twice what the calls say already: the tracer finds\n"
        "whatever the called steps need.",
        "executor_main(steps=[raw, tokens, model])",
        "@step(name='tiny/all')\ndef run_tiny():\n    model()  # calls tokens(), which calls raw()\n\n"
        "executor_main(steps=[run_tiny()])",
        entry.step_lists,
    ),
    Rule(
        "MT005",
        "executor-step",
        "a step is made by the constructor ExecutorStep",
        "It exists when its module has been imported, its config is built then, and its edges are what an InputName\n"
        "happens to say. A function under @step is called when it is needed, and its edges are what it uses.",
        "tokens = ExecutorStep(\n"
        "    name='tokens', fn=tokenize, config=Config(raw / 'train', out=this_output_path())\n)",
        "tokenize = deferred(_tokenize)\n\n@step(name='tokens')\ndef tokens() -> StepRef:\n"
        "    return tokenize(Config(raw() / 'train', out=output()))",
        legacy.constructors,
    ),
    Rule(
        "MT006",
        "submodule-import",
        "a name is imported from a module of the package instead of its root",
        "The root is what stays: modules below it are split and moved.",
        "from marin_trace.tracing.step import step",
        "from marin_trace import step",
        legacy.submodule_imports,
    ),
    Rule(
        "MT007",
        "no-entry-step",
        "executor_main is given something that is no call of an entry step",
        "The entry step names the experiment in plans and records, and is where its steps are called.",
        "model = default_train('tiny', tokens, recipe)\n\nif __name__ == '__main__':\n    executor_main(steps=[model])",
        "@step(name='tiny/all')\ndef run_tiny():\n    default_train('tiny', tokens(), recipe)\n\n"
        "if __name__ == '__main__':\n    executor_main(steps=[run_tiny()])",
        entry.missing_entries,
    ),
    Rule(
        "MT008",
        "deferred-at-import",
        "a deferred function is called when the module is imported",
        "Outside a step a deferred function is the function itself: it does its work there and then.",
        "tokenize = deferred(_tokenize)\n\nstats = tokenize(config)",
        "@step(name='tokens')\ndef tokens() -> StepRef:\n    return tokenize(config)",
        importing.deferred_calls,
    ),
    Rule(
        "MT009",
        "output-outside-step",
        "output() is called outside a step",
        "It is the path of the step whose body is traced; elsewhere there is none.",
        "CONFIG = Config(out=output())",
        "@step(name='tokens')\ndef tokens() -> StepRef:\n    return tokenize(Config(out=output()))",
        importing.outputs_outside_steps,
    ),
    Rule(
        "MT010",
        "ref-as-text",
        "text is made of a ref",
        "A ref has no path before its step is lowered: the text would name no file.",
        'Config(data=f"{raw()}/train")',
        'Config(data=raw() / "train")',
        refs.texts,
    ),
    Rule(
        "MT011",
        "ref-as-path",
        "a ref is given to os.path, Path or open",
        "These need a path, and a ref has none before its step is lowered.",
        "Config(data=os.path.join(raw(), 'train'))",
        "Config(data=raw() / 'train')",
        refs.path_functions,
    ),
    Rule(
        "MT012",
        "this-output-path",
        "this_output_path() or THIS_OUTPUT_PATH",
        "output() says the same in the body of a step, and is an error elsewhere instead of a marker that travels.",
        "Config(out=this_output_path('model'))",
        "Config(out=output() / 'model')",
        legacy.own_path_markers,
    ),
    Rule(
        "MT013",
        "legacy-reference",
        "a name or attribute of the older executor's references",
        "Calling a step returns a StepRef, which can do what InputName did. It has no config and no function.",
        "Config(data=output_path_of(raw, 'train'), model=InputName.hardcoded('gs://bucket/model'))",
        "Config(data=raw() / 'train', model=StepRef.hardcoded('gs://bucket/model'))",
        legacy.references,
    ),
    Rule(
        "MT014",
        "undeferred-call",
        "a step's body calls a library function as it is",
        "A step's body runs while the pipeline is traced. Called as it is, the function works then, with a path that\n"
        "is none yet.",
        "from lib.tokenize import tokenize\n\n@step(name='tokens')\ndef tokens():\n"
        "    return tokenize(Config(out=output()))",
        "from lib.tokenize import tokenize as _tokenize\n\ntokenize = deferred(_tokenize)\n\n@step(name='tokens')\n"
        "def tokens():\n    return tokenize(Config(out=output()))",
        layers.undeferred_calls,
    ),
    Rule(
        "MT015",
        "decision-on-ref",
        "a condition, comparison or loop asks a ref for its value",
        "What a step makes is not known while the pipeline is traced.",
        "if model.artifact.loss < 2:\n    evaluate(model)",
        "evaluate(model, only_below=2)  # decided in the function that runs",
        refs.decisions,
    ),
    Rule(
        "MT016",
        "uncalled-step",
        "a step function stands where what it returns is meant",
        "A step is a function: its ref is what calling it returns.",
        "executor_main(steps=[run_tiny])",
        "executor_main(steps=[run_tiny()])",
        entry.uncalled_steps,
    ),
)
"""Every rule."""
