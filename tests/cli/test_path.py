"""Laws of ``marin-trace path``: one line for a shell, or near names and 1."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Command
from tests.cli.site import Site
from tests.scripts import run_command


def relative(site: Site, out: str) -> str:
    return re.sub(r"[0-9a-f]{8}$", "HASH", out.removeprefix(f"{site.prefix}/").rstrip("\n"))


@pytest.mark.parametrize(("flags", "name"), [([], "text/t0"), ([], "merged"), (["--vocab_size", "999"], "count/t1")])
def test_an_experiments_step_has_a_path_whether_it_is_built_or_not(
    site: Site, told: Command, flags: list[str], name: str
) -> None:
    code, out, err = told("path", name, "--prefix", site.prefix, site.script, *flags)
    assert (code, relative(site, out), err) == (0, f"{name}-HASH", "")


def test_below_a_prefix_a_name_is_enough_where_it_has_one_build(site: Site, told: Command) -> None:
    code, out, _ = told("path", "text/t0", site.prefix)
    assert (code, relative(site, out)) == (0, "text/t0-HASH")
    assert Path(out.strip()).is_dir()


def test_every_way_to_write_a_step_leads_to_it(site: Site, told: Command) -> None:
    path = next(Path(site.prefix, "count").iterdir())
    for word in (path, f"{path}/", f"count/{path.name}", f"count/{path.name}/"):
        for where in ([site.prefix], ["--prefix", site.prefix]):
            assert told("path", word, *where)[:2] == (0, f"{path}\n")


def test_a_directory_of_the_same_name_is_not_in_the_way(
    site: Site, told: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "text" / "t0").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert relative(site, told("path", "text/t0", site.prefix)[1]) == "text/t0-HASH"
    assert relative(site, told("path", "text/t0", "--prefix", site.prefix, site.script)[1]) == "text/t0-HASH"
    monkeypatch.chdir(site.prefix)
    built = next(Path("text").glob("t0-*"))
    for word in (f"./{built}", built):
        assert told("path", word, tmp_path)[:2] == (0, f"{site.prefix}/{built}\n")


def test_several_builds_of_a_name_are_named(site: Site, told: Command) -> None:
    code, out, err = told("path", "count/t0", site.prefix)
    assert (code, out) == (1, "")
    assert re.fullmatch(
        r"StepUnknownError: count/t0 is the name of 3 outputs\n(  count/t0-[0-9a-f]{8}\n){3}\nhint: .*\n", err
    )


@pytest.mark.parametrize("has_file", [True, False])
def test_a_typo_is_answered_with_near_names(site: Site, told: Command, has_file: bool) -> None:
    where = ["--prefix", site.prefix, str(site.script)] if has_file else [site.prefix]
    code, out, err = told("path", "txt/t0", *where)
    assert (code, out) == (1, "")
    assert re.search(r"StepUnknownError: .*txt/t0.*\n  near: text/t0-[0-9a-f]{8}, text/t1-", err)


def test_where_nothing_is_near_some_are_named(site: Site, told: Command) -> None:
    code, _, err = told("path", "zzzzzz", "--prefix", site.prefix, site.script)
    assert code == 1
    assert re.search(r"called zzzzzz\n  there are: text/t0-\w+, count/t0-\w+, text/t1-\w+\n", err)


def test_a_group_has_no_path(site: Site, told: Command) -> None:
    code, _, err = told("path", "sources", "--prefix", site.prefix, site.script)
    assert code == 1
    assert "StepUnknownError: sources is a group: it runs nothing, and has no output" in err


def test_an_output_at_a_chosen_path_is_found_by_its_steps_name(tmp_path: Path, told: Command) -> None:
    records = tmp_path / "experiments"
    records.mkdir()
    entry = f'{{"name": "train/best", "output_path": "{tmp_path}/chosen/place", "outcome": "succeeded"}}'
    (records / "20260131-120000-aaaaaa.json").write_text(f'{{"steps": [{entry}]}}')
    assert told("path", "train/best", tmp_path)[:2] == (0, f"{tmp_path}/chosen/place\n")


def test_as_json_it_is_an_object(site: Site, told_json: Callable[..., tuple[int, dict[str, Any]]]) -> None:
    code, value = told_json("path", "text/t1", site.prefix)
    assert (code, value["name"]) == (0, "text/t1")
    assert value["output_path"].startswith(f"{site.prefix}/text/t1-")


def test_in_a_shell_only_the_path_is_on_stdout(site: Site) -> None:
    done = run_command("path", "merged", site.script, prefix=site.prefix, directory=site.script.parent)
    assert done.returncode == 0, done.stderr
    assert relative(site, done.stdout) == "merged-HASH"
