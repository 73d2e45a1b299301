"""The test of the soak: its checks see what is wrong."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from marin_trace.runtime.log_records import AttemptLog, ClaimRecord, EndKind, EndRecord
from tests.soak.checks import Data, late_writes, named_by_verify, problems_of_site, stale_tokens
from tests.soak.series import Outcome, Series, Terms
from tests.soak.site import Site, await_exit


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A site on which one launcher has done everything."""
    with Site(tmp_path_factory.mktemp("finished") / "site") as site:
        assert await_exit(site.launch("--pace", 0), 60) == 0
        yield site


@pytest.fixture
def site(finished: Site) -> Iterator[Site]:
    """The same, to be spoiled."""
    saved = finished.directory.parent / "saved"
    shutil.copytree(finished.directory, saved, symlinks=True)
    yield finished
    shutil.rmtree(finished.directory)
    saved.rename(finished.directory)


def merged(site: Site) -> Path:
    (path,) = (site.prefix / "soak").glob("merged-*")
    return path


def end_of(site: Site) -> Path:
    return Path(AttemptLog(str(merged(site))).end(1))


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def forge_end(site: Site, **fields: Any) -> None:
    """Another end in the place of the real one, which fits itself."""
    path = end_of(site)
    path.write_bytes(replace(EndRecord.from_bytes(path.read_bytes(), str(path)), **fields).to_bytes())


def add_epoch(site: Site) -> None:
    log = AttemptLog(str(merged(site)))
    claim = ClaimRecord.from_bytes(Path(log.claim(1)).read_bytes(), log.claim(1))
    end = EndRecord.from_bytes(Path(log.end(1)).read_bytes(), log.end(1))
    Path(log.claim(2)).write_bytes(replace(claim, epoch=2).to_bytes())
    Path(log.end(2)).write_bytes(replace(end, epoch=2).to_bytes())


def begin_together(site: Site) -> None:
    row = {"event": "begins", "output": str(merged(site)), "pid": 1, "is_alone": False}
    with site.journal.open("a") as journal:
        journal.write(f"{json.dumps(row)}\n")


def claim_by_another_process(site: Site) -> None:
    change(merged(site) / ".executor" / "000001.claim", pid=1)


def another_run_says_that_it_built_everything(site: Site) -> None:
    (record,) = (site.prefix / "experiments").glob("*.json")
    copy = record.with_name("other.json")
    shutil.copy(record, copy)
    change(copy, run_id="other")


SPOILERS: list[tuple[Callable[[Site], object], str]] = [
    (lambda site: end_of(site).unlink(), "ends \\[\\]"),
    (lambda site: forge_end(site, kind=EndKind.RELEASED), "SUCCESS at epochs \\[\\]"),
    (lambda site: forge_end(site, nonce="other"), "is a SUCCESS of other"),
    (lambda site: forge_end(site, kind=EndKind.FAILED), "has failed"),
    (add_epoch, "SUCCESS at epochs \\[1, 2\\]"),
    (begin_together, "while another one ran the body"),
    (claim_by_another_process, "whose body has not ended"),
    (another_run_says_that_it_built_everything, "say that they built it"),
    (lambda site: (merged(site) / "part-0.txt").write_text("half"), "part-0.txt has other content"),
    (lambda site: (merged(site) / "part-0.txt").unlink(), "part-0.txt is missing"),
    (lambda site: (merged(site) / ".tmp-1").write_text("half"), ".tmp-1 is unexpected"),
    (lambda site: os.utime(merged(site) / "part-0.txt"), "verify says: .*rewritten"),
    (lambda site: shutil.copytree(merged(site), site.prefix / "other"), "nobody asked for this output"),
]


def test_a_sound_site_has_no_problem(finished: Site, expected: Data) -> None:
    assert problems_of_site(finished, expected) == []
    assert late_writes(finished, expected) == set()
    assert stale_tokens(finished, expected) == 0


@pytest.mark.parametrize("spoil", [Path.unlink, lambda token: token.write_text("RUNNING")], ids=["missing", "another"])
def test_a_stale_token_is_counted(site: Site, expected: Data, spoil: Callable[[Path], object]) -> None:
    spoil(merged(site) / ".executor_status")
    assert (stale_tokens(site, expected), problems_of_site(site, expected)) == (1, [])


@pytest.mark.parametrize(("spoil", "message"), SPOILERS)
def test_what_is_spoiled_is_seen(site: Site, expected: Data, spoil: Callable[[Site], object], message: str) -> None:
    spoil(site)
    with pytest.raises(AssertionError, match=message):
        raise AssertionError("\n".join(problems_of_site(site, expected)))


def test_a_late_write_is_noted_and_named(site: Site, expected: Data) -> None:
    path = merged(site) / "part-0.txt"
    written_ns = end_of(site).stat().st_mtime_ns + 10**9
    row = {"event": "wrote", "output": str(merged(site)), "pid": 1, "file": path.name, "began_ns": written_ns}
    with site.journal.open("a") as journal:
        journal.write(f"{json.dumps(row)}\n")
    path.write_text("late")
    assert late_writes(site, expected) == {(str(merged(site)), "part-0.txt")} == named_by_verify(site)


def test_a_process_that_is_left_over_is_seen(tmp_path: Path) -> None:
    with Site(tmp_path / "site") as site:
        launcher = site.launch("--pace", 5)
        assert f"process {launcher.pid} is left over" in "\n".join(site.await_end_of_all(0.1))
    assert site.carriers() == set()


def test_a_violation_is_told_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.soak import __main__ as soak

    def broken(terms: Terms) -> Outcome:
        return Outcome("1 trial", (f"seed {terms.seed}: broken",))

    monkeypatch.setattr(soak, "ALL", (Series("R0", "a broken law", broken, weight=1),))
    assert soak.main(["--seed", "4"]) == 1
    shown = capsys.readouterr()
    assert "VIOLATION seed 4: broken" in shown.out
    assert "| R0 | any | a broken law | 1 trial | 1 | 4 | 0 |" in shown.out
    shutil.rmtree(shown.err.split(": ")[1].strip())
