"""The names of both worlds: what the older executor offered, and what the root of this package offers."""

import re
from dataclasses import dataclass
from typing import Final, final

OLD_PACKAGE: Final = "marin.execution"
"""Where the older executor is imported from, and where the migration guide imports the new names from."""

PACKAGE: Final = "marin_trace"

ROOT_NAMES: Final = frozenset(
    {
        "Artifact",
        "Graph",
        "MarinTraceError",
        "MarinTraceWarning",
        "ResourceConfig",
        "StepRef",
        "StepSpec",
        "deferred",
        "executor_main",
        "lower",
        "output",
        "parse_flags",
        "register_encoder",
        "step",
        "trace",
        "unversioned",
        "versioned",
    }
)
"""What is imported from the package's root. A test compares it with ``marin_trace.__all__``: nothing of the package
that this analysis is about is loaded for it."""

OWN_PATH_NAMES: Final = frozenset({"this_output_path", "THIS_OUTPUT_PATH"})
"""What stood for a step's own output path."""

REFERENCE_NAMES: Final = frozenset(
    {"InputName", "OutputName", "VersionedValue", "output_path_of", "get_executor_step"}
    | {"ensure_versioned", "unwrap_versioned_value"}
)
"""What the older executor made references and versions with, and the package's root does not offer."""

LEGACY_NAMES: Final = OWN_PATH_NAMES | REFERENCE_NAMES | {"ExecutorStep"}

WELL_KNOWN_NAMES: Final = LEGACY_NAMES | {"StepRef", "deferred", "executor_main", "output", "step"}
"""What these mean is clear even where nothing binds them."""

STEP_OPTIONS: Final = ("description", "resources", "pip_dependency_groups", "override_output_path", "env_vars")
"""Arguments of ``ExecutorStep`` that ``@step`` has under the same name."""

LIBRARY_MODULES: Final = frozenset({"io"})
"""Modules of the package that library code may import."""

HELPERS: Final = frozenset(
    f"default_{what}"
    for what in ("anneal", "dpo", "download", "eval", "scaling_law_pred", "sft", "tokenize", "train", "train_dpo")
)
"""Functions of Marin that make a step, known by their names where their module cannot be read."""

HELPERS_FOR_SEVERAL: Final = frozenset(
    {"default_base_eval", "default_key_evals", "default_sft_eval", "default_speedrun"}
)
"""Those that make a list of steps."""

HELPERS_FOR_MAPPINGS: Final = frozenset({"default_validation_sets"})
"""Those that make a mapping of steps."""

HELPER: Final = re.compile(r"default_\w+")
"""How other functions are called that make steps, where an experiment's own module has them."""

REPORT_FORMATS: Final = ("github", "json", "sarif", "text")
"""How findings can be printed."""

STEP_LIST: Final = re.compile(r"\w*STEPS\w*|\w*steps\w*")
"""How a list is called that names the steps of an experiment."""


@final
@dataclass(frozen=True, slots=True)
class Packages:
    """Where the names of the executor are imported from, before and after."""

    old: str = OLD_PACKAGE
    new: str = PACKAGE

    def framework_name(self, dotted: str) -> str | None:
        """``step`` for ``marin.execution.executor.step``; None for what belongs to neither package."""
        for package in (self.old, self.new, OLD_PACKAGE, PACKAGE):
            if dotted.startswith(f"{package}."):
                return dotted.rpartition(".")[2]
        return None

    def is_framework(self, module: str) -> bool:
        """Whether a module is one of the packages, or lies in one."""
        packages = (self.old, self.new, OLD_PACKAGE, PACKAGE)
        return any(module == package or module.startswith(f"{package}.") for package in packages)

    @property
    def legacy(self) -> str:
        """Where names that are left in the old style are imported from."""
        return f"{self.new}.legacy"
