"""Hello, corpus: how much text does Python bring with it, and which names does it use most?

Collects the source files of the standard library (or of any other source), drops duplicates, measures what is left and
writes a Markdown page. The first run takes some seconds; a second one finds every step finished.

    python experiments/tutorials/hello_corpus.py --dry_run
    python experiments/tutorials/hello_corpus.py
    python experiments/tutorials/hello_corpus.py --source ~/src/my_project --shards 2

Expected: some 11 MB in about 300,000 lines, and `self` as the most frequent name of nearly every large package.
"""

import os
import platform
import re
from dataclasses import dataclass, replace

from experiments.lib.corpus.collect import STDLIB, is_stdlib
from experiments.lib.corpus.report import REPORT_FILE, summary_lines
from experiments.steps.corpus import collected_documents, corpus_report, corpus_statistics, normalised_corpus
from marin_trace import StepRef, executor_main, parse_flags, step


@dataclass(frozen=True)
class HelloFlags:
    """The flags of this experiment."""

    source: str = STDLIB
    """A directory, a file, a glob or an fsspec URL; by default the standard library of the Python that runs."""

    revision: str = ""
    """Which state of the source: change it when files under the same path have changed."""

    shards: int = 4
    """How many files the corpus is spread over."""

    workers: int = 4
    """How many files are read at a time; no part of the result."""


@step(name="tutorials/hello_corpus/{name}")
def hello_corpus(name: str, flags: HelloFlags) -> dict[str, StepRef]:
    """A group: its body calls steps and does no work of its own. Returns the steps whose results are worth a look."""
    source, revision, suffixes = flags.source, flags.revision, ()
    if is_stdlib(source):
        # The path of a standard library says too little about its content, so its version is part of the recipe.
        revision, suffixes = f"{platform.python_version()}{revision}", (".py",)
    documents = collected_documents(name, source, revision=revision, suffixes=suffixes, workers=flags.workers)
    corpus = normalised_corpus(name, documents, shards=flags.shards)
    statistics = corpus_statistics(name, corpus)
    report = corpus_report(name, f"The corpus {name}", documents, corpus, statistics)
    return {"documents": documents, "corpus": corpus, "statistics": statistics, "report": report}


def corpus_name(source: str) -> str:
    """A name for a source that can be part of a path: its last part without wildcards.

    Example:
        >>> corpus_name("gs://bucket/my texts/*.txt")
        'my-texts'
    """
    parts = [part for part in source.split("/") if part and not re.search(r"[*?\[]", part)]
    return re.sub(r"[^A-Za-z0-9_=+@-]+", "-", parts[-1] if parts else "").strip("-") or "corpus"


def located(source: str) -> str:
    """The source as it can be found from any directory: local paths made absolute, what is none as it is."""
    if is_stdlib(source) or "://" in source:
        return source
    return os.path.abspath(os.path.expanduser(source))


def main() -> None:
    """Runs the experiment and prints where its page is and what it says."""
    flags = parse_flags(HelloFlags)
    flags = replace(flags, source=located(flags.source))
    refs = hello_corpus(corpus_name(flags.source), flags)
    run = executor_main(steps=[refs], description="Figures of a text corpus")
    if run.dry_run or not run.includes(refs["report"]):
        return
    print(f"\nreport: {run.output_path(refs['report'])}/{REPORT_FILE}")
    for line in summary_lines(*(run.artifact(refs[name]) for name in ("documents", "corpus", "statistics"))):
        print(f"  {line}")


if __name__ == "__main__":
    main()
