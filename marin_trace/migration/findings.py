"""What lint says: findings, and the rules that make them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from marin_trace.errors import FlagError, explain

if TYPE_CHECKING:
    from marin_trace.migration.module import Module

SYNTAX_ERROR: Final = "MT000"


@final
@dataclass(frozen=True, slots=True, order=True)
class Finding:
    """One place in a file that a rule is about. Lines and columns count from 1, columns in characters."""

    path: str
    line: int
    column: int
    code: str
    message: str
    """One line without a full stop that names what stands there."""
    fix: str
    """What to write instead."""
    end_line: int
    end_column: int
    """Just behind the last character."""

    def as_json(self) -> dict[str, Any]:
        """The finding for machines."""
        return {
            "path": self.path,
            "line": self.line,
            "column": self.column,
            "end_line": self.end_line,
            "end_column": self.end_column,
            "code": self.code,
            "message": self.message,
            "fix": self.fix,
        }


Check = Callable[["Module"], Iterator[Finding]]


@final
@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: what it is called, what it looks for, and why."""

    code: str
    name: str
    """Short, in kebab case."""
    summary: str
    """One line without a full stop."""
    why: str
    """What goes wrong."""
    bad: str
    """Code that has it."""
    good: str
    """The same without it."""
    check: Check


def explanation(rule: Rule) -> str:
    """What ``--explain`` prints."""

    def indented(code: str) -> str:
        return "\n".join(f"    {line}".rstrip() for line in code.strip().splitlines())

    return "\n".join(
        [
            f"{rule.code} {rule.name}: {rule.summary}",
            "",
            rule.why.strip(),
            "",
            "instead of",
            "",
            indented(rule.bad),
            "",
            "write",
            "",
            indented(rule.good),
            "",
            f"To keep it anyway, end the line with  # noqa: {rule.code}",
        ]
    )


def chosen_codes(known: frozenset[str], select: list[str], ignore: list[str]) -> frozenset[str]:
    """The codes to look for.

    Args:
        known: All there are.
        select: Codes or beginnings of codes; none means all.
        ignore: Codes or beginnings of codes that are left out.

    Raises:
        FlagError: Something that is no code, and the beginning of none.
    """
    for text in (*select, *ignore):
        if not any(code.startswith(text) for code in known):
            codes = f"{min(known)} to {max(known)}"
            raise FlagError(explain(f"there is no rule {text!r}", facts={"rules": codes}, hint="--explain MT003"))
    selected = {code for code in known if not select or code.startswith(tuple(select))}
    return frozenset(code for code in selected if not ignore or not code.startswith(tuple(ignore)))
