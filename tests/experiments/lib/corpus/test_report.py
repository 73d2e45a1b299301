from dataclasses import replace
from pathlib import Path

from experiments.lib.corpus.collect import Collection, Unreadable
from experiments.lib.corpus.measure import CorpusStatistics, PackageStatistics, TokenCount
from experiments.lib.corpus.normalise import NormalisedCorpus
from experiments.lib.corpus.report import NAMED_UNREADABLE, Report, ReportConfig, report_text, write_report

PACKAGES = (
    PackageStatistics("json", 2, 2000, 60, 500, 40, (TokenCount("self", 90), TokenCount("x", 3))),
    PackageStatistics("ast", 1, 1000, 30, 250, 20, ()),
)
CONFIG = ReportConfig(
    title="A corpus",
    collection=Collection("stdlib", 5, 3100, ()),
    corpus=NormalisedCorpus(3, 1, 1, ("shard-00000-of-00001.jsonl",)),
    statistics=CorpusStatistics(3, 3000, 90, 750, 55, PACKAGES),
    output_path="",
)

PAGE = """\
# A corpus

Collected from `stdlib`.

- 5 files collected, 0 unreadable
- 3 documents kept; dropped: 1 duplicates, 1 empty
- 3,000 bytes in 90 lines
- 55 identifiers, 750 occurrences

## The 2 largest of 2 packages

| package | documents | bytes | lines | identifiers | most frequent tokens |
| --- | ---: | ---: | ---: | ---: | --- |
| `json` | 2 | 2,000 | 60 | 40 | `self` (90), `x` (3) |
| `ast` | 1 | 1,000 | 30 | 20 |  |
"""


def test_the_page_is_written_whole(tmp_path: Path) -> None:
    report = write_report(replace(CONFIG, output_path=str(tmp_path / "out")))
    assert report == Report(file="report.md", packages=2)
    assert (tmp_path / "out" / "report.md").read_text() == PAGE
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.md"]


def test_the_table_lists_the_largest_packages() -> None:
    text = report_text(replace(CONFIG, packages=1))
    assert "## The 1 largest of 2 packages" in text
    assert "`json`" in text
    assert "`ast`" not in text


def test_unreadable_files_are_counted_and_some_are_named() -> None:
    unreadable = tuple(Unreadable(f"{number}.bin", "binary") for number in range(NAMED_UNREADABLE + 2))
    text = report_text(replace(CONFIG, collection=replace(CONFIG.collection, unreadable=unreadable)))
    assert f"{NAMED_UNREADABLE + 2} unreadable" in text
    assert text.count(": binary\n") == NAMED_UNREADABLE
    assert text.endswith("- and 2 more\n")


def test_no_name_breaks_the_table() -> None:
    odd = replace(PACKAGES[0], package="a|b`c\nd", frequent_tokens=())
    text = report_text(replace(CONFIG, statistics=replace(CONFIG.statistics, packages=(odd,))))
    assert "| `a¦b'c?d` | 2 |" in text
