"""The commands that look, on object stores: the same answers as on a disk."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.conftest import Command
from tests.cli.site import Site, golden, made_site
from tests.storage.clouds import Cloud, gcs_cloud, s3_cloud


@pytest.fixture(params=[gcs_cloud, s3_cloud], ids=["gs", "s3"])
def cloud(request: pytest.FixtureRequest) -> Iterator[Cloud]:
    with request.param() as found:
        yield found


def test_every_command_says_what_it_says_on_a_disk(cloud: Cloud, tmp_path: Path, told: Command) -> None:
    site = made_site(tmp_path, prefix=f"{cloud.bucket}/outputs")
    where = ("--prefix", site.prefix, site.script)
    said = [
        ("status_prefix", ["status", site.prefix]),
        ("status_experiment", ["status", *where, "--vocab_size", 13]),
        ("why_experiment", ["why", "merged", *where, "--vocab_size", 5]),
        ("history", ["history", site.prefix]),
        ("graph_status", ["graph", "--status", *where, "--vocab_size", 13]),
    ]
    for name, argv in said:
        assert site.told(told(*argv)[1]) == golden(name), name
    runs = re.findall(r"^\S+-\S+-\w{9}", told("history", site.prefix)[1], re.MULTILINE)
    assert site.told(told("history", runs[2], runs[0], site.prefix)[1]) == golden("history_two")
    assert told("logs", "text/t0", site.prefix)[1] == "writing t0\n"
    assert Site(site.script, site.prefix).told(told("path", "text/t0", site.prefix)[1]) == "PREFIX/text/t0-HASH\n"
