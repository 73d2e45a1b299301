"""What must hold of a prefix when everything that worked on it has ended."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord, StartRecord
from marin_trace.runtime.maintenance import find_outputs
from marin_trace.runtime.manifest import Manifest, data_files, manifest_path
from tests.soak.site import Row, Site, run_records, verify

Data = dict[str, dict[str, bytes]]


def data_of(prefix: Path) -> Data:
    """The content of every data file, by output and path, each relative."""
    return {
        str(Path(output).relative_to(prefix)): {
            path: Path(file.path).read_bytes() for path, file in data_files(output).items()
        }
        for output in find_outputs(str(prefix))
    }


@dataclass(frozen=True, slots=True)
class Output:
    """An output and its log, as they lie there."""

    path: str
    claims: dict[int, ClaimRecord]
    ends: dict[int, EndRecord]
    starts: dict[int, StartRecord]

    @property
    def last(self) -> int:
        """The highest epoch; 0 where there is none."""
        return max(self.claims, default=0)

    def owner(self, epoch: int) -> tuple[str, int]:
        """Nonce and process of the attempt that may commit an epoch: the claim's, or that of the job that started."""
        start = self.starts.get(epoch)
        claim = self.claims[epoch]
        return (claim.nonce, claim.pid) if start is None else (start.attempt, start.pid)

    @property
    def committed_ns(self) -> int:
        """When the last epoch was ended, by this machine's clock."""
        return Path(AttemptLog(self.path).end(self.last)).stat().st_mtime_ns

    @property
    def manifest(self) -> Manifest:
        path = manifest_path(AttemptLog(self.path), self.last)
        return Manifest.from_bytes(Path(path).read_bytes(), path)


def output_at(path: str) -> Output:
    """Reads the log of an output."""
    log = AttemptLog(path)
    claims: dict[int, ClaimRecord] = {}
    ends: dict[int, EndRecord] = {}
    starts: dict[int, StartRecord] = {}
    for file in sorted(Path(log.directory).glob("[0-9]*")):
        epoch = int(file.name.partition(".")[0])
        if file.suffix == ".claim":
            claims[epoch] = ClaimRecord.from_bytes(file.read_bytes(), str(file))
        elif file.suffix == ".end":
            ends[epoch] = EndRecord.from_bytes(file.read_bytes(), str(file))
        elif file.suffix == ".start":
            starts[epoch] = StartRecord.from_bytes(file.read_bytes(), str(file))
    return Output(path, claims, ends, starts)


def problems_of_log(output: Output, *, may_fail: bool = False) -> list[str]:
    """Every epoch has a claim and a decision, and the last one, and no other, is a success."""
    problems: list[str] = []
    if list(output.claims) != list(range(1, output.last + 1)) or output.claims.keys() != output.ends.keys():
        problems.append(f"claims {sorted(output.claims)}, ends {sorted(output.ends)}")
    successes = [epoch for epoch, end in output.ends.items() if end.kind is EndKind.SUCCESS]
    if successes != [output.last]:
        problems.append(f"SUCCESS at epochs {successes}, the last epoch is {output.last}")
    problems += [
        f"epoch {epoch} is a SUCCESS of {output.ends[epoch].nonce}, which did not own it"
        for epoch in successes
        if output.ends[epoch].nonce != output.owner(epoch)[0]
    ]
    failed = {epoch: end.error for epoch, end in output.ends.items() if end.kind is EndKind.FAILED}
    problems += [f"epoch {epoch} has failed: {error}" for epoch, error in failed.items() if not may_fail]
    return [f"{output.path}: {problem}" for problem in problems]


def problems_of_owners(output: Output, noted: list[Row], records: list[Row]) -> list[str]:
    """Who committed ran the body to its end, and nobody believes to have committed another epoch."""
    problems: list[str] = []
    _, pid = output.owner(output.last)
    bodies = [row for row in noted if row["output"] == output.path and row["event"] == "ends"]
    if pid not in [row["pid"] for row in bodies]:
        problems.append(f"epoch {output.last} was committed by process {pid}, whose body has not ended")
    believers = [
        (record["run_id"], step["epoch"])
        for record in records
        for step in record["steps"]
        if step["output_path"] == output.path and step["outcome"] == "succeeded"
    ]
    is_double = len(believers) > 1 and output.claims[output.last].job is None
    if is_double or any(epoch != output.last for _, epoch in believers):
        problems.append(f"epoch {output.last} is the last, but {believers} say that they built it")
    return [f"{output.path}: {problem}" for problem in problems]


def problems_of_bodies(noted: list[Row]) -> list[str]:
    """No body ran while another process was in that of the same step."""
    return [
        f"{row['output']}: process {row['pid']} began while another one ran the body"
        for row in noted
        if row["event"] == "begins" and not row["is_alone"]
    ]


def problems_of_data(output: Output, found: dict[str, bytes], expected: dict[str, bytes], fresh: bool) -> list[str]:
    """What lies there is what one attempt writes, but for marked leftovers of writers that were killed."""
    marked = {entry.path for entry in output.manifest.files if entry.is_leftover}
    leftovers = {path for path in found if Path(path).name.startswith(".tmp-") and not fresh and path in marked}
    problems = [f"{path} is missing" for path in expected if path not in found]
    problems += [f"{path} is unexpected" for path in found if path not in expected and path not in leftovers]
    problems += [f"{path} has other content" for path in expected if path in found and found[path] != expected[path]]
    return [f"{output.path}: {problem}" for problem in problems]


def stale_tokens(site: Site, expected: Data) -> int:
    """How many finished outputs do not say so in their token.

    That is allowed: who was killed between the commit and the token left it, and the log alone is the truth.
    """
    tokens = [Path(AttemptLog(str(site.prefix / name)).status_token) for name in expected]
    return sum(not token.exists() or token.read_text().strip() != "SUCCESS" for token in tokens)


def is_fresh(path: str) -> bool:
    """Whether the step of an output of the experiment begins with an empty output."""
    return Path(path).name.startswith(("merged-", "report-"))


def problems_of_control_state(site: Site, expected: Data, *, may_fail: bool = False) -> list[str]:
    """Of the logs of all outputs that the experiment makes."""
    noted, records = site.noted(), list(run_records(site.prefix))
    problems: list[str] = []
    for name in expected:
        output = output_at(str(site.prefix / name))
        found = problems_of_log(output, may_fail=may_fail)
        problems += found or problems_of_owners(output, noted, records)
    extra = {str(Path(path).relative_to(site.prefix)) for path in find_outputs(str(site.prefix))} - expected.keys()
    return problems + [f"{name}: nobody asked for this output" for name in sorted(extra)]


def problems_of_site(site: Site, expected: Data, *, may_fail: bool = False) -> list[str]:
    """All checks of a trial in which nothing could write late.

    Args:
        site: Of the trial.
        expected: What one undisturbed run leaves.
        may_fail: Whether an attempt may have failed before the one that succeeded.
    """
    site.fetch()
    problems = problems_of_bodies(site.noted()) + problems_of_control_state(site, expected, may_fail=may_fail)
    if problems:
        return problems
    found = data_of(site.prefix)
    for name in expected:
        output = output_at(str(site.prefix / name))
        problems += problems_of_data(output, found[name], expected[name], is_fresh(name))
    code, rows = verify(site)
    problems += [f"verify says: {json.dumps(row)}" for row in rows if row["result"] != "ok" or row["files"]]
    return problems + ([f"verify ends with {code}"] if code != 0 else [])


def late_writes(site: Site, expected: Data) -> set[tuple[str, str]]:
    """Output and file of each write that began after the commit of its output."""
    committed = {str(site.prefix / name): output_at(str(site.prefix / name)).committed_ns for name in expected}
    return {
        (row["output"], row["file"])
        for row in site.noted()
        if row["event"] == "wrote" and row["began_ns"] > committed[row["output"]] + site.clock_tick_ns
    }


def named_by_verify(site: Site) -> set[tuple[str, str]]:
    """Output and file of each difference that `verify` names."""
    rows: list[dict[str, Any]] = verify(site)[1]
    return {(row["output"], file["path"]) for row in rows for file in row["files"]}
