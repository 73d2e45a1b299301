"""Findings: complaints about a traced graph that are collected, so that one error can list them all."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from marin_trace.errors import ConfigTypeError, MarinTraceError, explain
from marin_trace.ir.location import Location


@dataclass(frozen=True, slots=True)
class Finding:
    """One complaint."""

    summary: str
    """One line, complete alone."""
    step: str
    """The name of the step whose body it is about."""
    location: Location
    hint: str | None = None
    facts: dict[str, Any] = field(default_factory=dict[str, Any])
    error: type[MarinTraceError] = ConfigTypeError
    """What is raised where this is the first finding."""


def raise_findings(findings: Sequence[Finding]) -> None:
    """Raises all findings as one error whose message lists each.

    Raises:
        MarinTraceError: There is at least one; the class is the first one's.
    """
    if not findings:
        return
    if len(findings) == 1:
        only = findings[0]
        raise only.error(
            explain(only.summary, at=only.location, facts={"step": only.step, **only.facts}, hint=only.hint)
        )
    lines = [f"{len(findings)} mistakes in the pipeline"]
    for number, finding in enumerate(findings, 1):
        facts = {"step": finding.step, **finding.facts} | ({"hint": finding.hint} if finding.hint else {})
        entry = explain(finding.summary, at=finding.location, facts=facts).split("\n")
        lines += ["", f"{number}. {entry[0]}", *(f"   {line}" for line in entry[1:])]
    raise findings[0].error("\n".join(lines))
