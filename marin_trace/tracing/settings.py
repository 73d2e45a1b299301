"""What ``@step`` and ``with_options`` are told: option names, values, and templates that are still to be filled in."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, final

from marin_trace.errors import ConfigError, explain
from marin_trace.ir.canonical import memo_bytes
from marin_trace.ir.config_tree import flatten, unversioned
from marin_trace.ir.graph import NO_OPTIONS, Options
from marin_trace.ir.location import user_location
from marin_trace.ir.refs import StepRef
from marin_trace.tracing.templates import fields_of


@final
@dataclass(frozen=True, slots=True)
class StepSettings:
    """What ``@step`` was told: a name template, and options of which some are templates or callables still."""

    name: str | None = None
    options: Options = NO_OPTIONS

    def updated(self, changes: Mapping[str, Any]) -> "StepSettings":
        """The settings with changes by ``with_options``."""
        changes = dict(changes)
        name = changes.pop("name", self.name)
        return StepSettings(name, dataclasses.replace(self.options, **changes) if changes else self.options)


_OPTION_NAMES = tuple(field.name for field in dataclasses.fields(Options))


def check_option_names(options: Mapping[str, Any]) -> None:
    """Refuses an option that a step does not have.

    Raises:
        ConfigError: Naming the nearest one.
    """
    known = ("name", *_OPTION_NAMES)
    for name in options:
        if name not in known:
            import difflib

            near = difflib.get_close_matches(name, known, n=1)
            raise ConfigError(
                explain(
                    f"a step has no option {name!r}",
                    at=user_location(),
                    facts={"options": ", ".join(known)},
                    hint=f"did you mean {near[0]!r}?" if near else None,
                )
            )


def normalised(options: Mapping[str, Any]) -> dict[str, Any]:
    """Options as they are kept: sequences as tuples, mappings copied."""
    changes = dict(options)
    if changes.get("env_vars") is not None:
        changes["env_vars"] = dict(changes["env_vars"])
    groups = changes.get("pip_dependency_groups")
    if groups is not None:
        changes["pip_dependency_groups"] = (groups,) if isinstance(groups, str) else tuple(groups)
    return changes


def options_key(settings: StepSettings) -> bytes:
    """What two calls must share to be calls with the same options."""
    given = settings.options.given()
    tree = flatten(unversioned([settings.name, sorted(given), [given[name] for name in sorted(given)]]), [])
    return memo_bytes(tree)


def check_settings(settings: StepSettings) -> None:
    """Refuses an option with a value that it cannot have.

    Raises:
        ConfigError: Naming the option and the value.
        StepNameError: A template cannot be read.
    """
    for option in ("name", "description", "override_output_path"):
        template: Any = settings.name if option == "name" else getattr(settings.options, option)
        if isinstance(template, str):
            fields_of(template)
        elif template is not None:
            raise ConfigError(explain(f"{option} is a text, not {template!r}", at=user_location()))
    options = settings.options
    complaint = None
    if options.retries is not None and (type(options.retries) is not int or options.retries < 0):
        complaint = f"retries is a whole number ≥ 0, not {options.retries!r}"
    elif options.timeout is not None and not (isinstance(options.timeout, int | float) and options.timeout > 0):  # pyright: ignore[reportUnnecessaryIsInstance]
        complaint = f"timeout is a number of seconds > 0, not {options.timeout!r}"
    elif options.expect_fingerprint is not None and not _is_fingerprint_start(options.expect_fingerprint):
        complaint = f"expect_fingerprint is 8 to 64 hex digits, not {options.expect_fingerprint!r}"
    elif options.version is not None and type(options.version) not in (str, int):
        complaint = f"version is a text or a whole number, not {options.version!r}"
    for name, value in (options.env_vars or {}).items():
        if type(name) is not str:
            complaint = f"the name of an environment variable is text, not {name!r}"
        elif type(value) is not str:
            complaint = (
                f"env_vars[{name!r}] is text, not {repr(value) if isinstance(value, StepRef) else type(value).__name__}"
            )
    if complaint:
        raise ConfigError(explain(complaint, at=user_location()))


def _is_fingerprint_start(text: str) -> bool:
    return 8 <= len(text) <= 64 and all(character in "0123456789abcdef" for character in text)
