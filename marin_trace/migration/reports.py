"""Findings as text, JSON, SARIF 2.1.0 and annotations of GitHub."""

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from marin_trace.migration.findings import SYNTAX_ERROR, Finding
from marin_trace.migration.rules.registry import RULES

_SARIF_SCHEMA: Final = "https://json.schemastore.org/sarif-2.1.0.json"


def text_report(findings: Sequence[Finding]) -> str:
    """``file:line:column: CODE message``, each with its fix below, and how many there are."""
    lines: list[str] = []
    for finding in findings:
        lines.append(f"{finding.path}:{finding.line}:{finding.column}: {finding.code} {finding.message}")
        lines.append(f"    write: {finding.fix}")
    if not findings:
        return "nothing found"
    counts = Counter(finding.code for finding in findings)
    summary = ", ".join(f"{count} x {code}" for code, count in sorted(counts.items()))
    files = len({finding.path for finding in findings})
    lines.append(f"found {len(findings)} in {files} {'file' if files == 1 else 'files'}: {summary}")
    lines.append(f"what one is about: marin-trace lint --explain {findings[0].code}")
    return "\n".join(lines)


def json_report(findings: Sequence[Finding]) -> str:
    """One JSON list of objects."""
    return json.dumps([finding.as_json() for finding in findings], indent=2, ensure_ascii=False)


def github_report(findings: Sequence[Finding]) -> str:
    """Commands of a GitHub workflow, which shows each at its line."""
    return "\n".join(
        f"::error file={_property(finding.path)},line={finding.line},col={finding.column},"
        f"endLine={finding.end_line},title={_property(finding.code)}::"
        f"{_escaped(f'{finding.code} {finding.message}; write: {finding.fix}')}"
        for finding in findings
    )


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def sarif_report(findings: Sequence[Finding]) -> str:
    """A SARIF 2.1.0 log of one run."""
    rules = [
        {"id": SYNTAX_ERROR, "name": "syntax-error", "shortDescription": {"text": "not readable as Python"}},
        *(
            {
                "id": rule.code,
                "name": rule.name,
                "shortDescription": {"text": rule.summary},
                "fullDescription": {"text": rule.why},
            }
            for rule in RULES
        ),
    ]
    index_by_code = {rule["id"]: index for index, rule in enumerate(rules)}
    driver = {"name": "marin-trace lint", "rules": rules}
    results = [_sarif_result(finding, index_by_code) for finding in findings]
    run = {"tool": {"driver": driver}, "columnKind": "unicodeCodePoints", "results": results}
    return json.dumps({"$schema": _SARIF_SCHEMA, "version": "2.1.0", "runs": [run]}, indent=2, ensure_ascii=False)


def _sarif_result(finding: Finding, index_by_code: Mapping[Any, int]) -> dict[str, Any]:
    region = {
        "startLine": finding.line,
        "startColumn": finding.column,
        "endLine": finding.end_line,
        "endColumn": finding.end_column,
    }
    path = Path(finding.path)
    uri = path.as_uri() if path.is_absolute() else path.as_posix().replace(" ", "%20")
    return {
        "ruleId": finding.code,
        "ruleIndex": index_by_code[finding.code],
        "level": "error",
        "message": {"text": f"{finding.message}; write: {finding.fix}"},
        "locations": [{"physicalLocation": {"artifactLocation": {"uri": uri}, "region": region}}],
    }


REPORTS: Final[Mapping[str, Callable[[Sequence[Finding]], str]]] = {
    "text": text_report,
    "json": json_report,
    "sarif": sarif_report,
    "github": github_report,
}
"""The reports by the names that the command line has for them."""
