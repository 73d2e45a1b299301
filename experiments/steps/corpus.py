"""Steps that make a text corpus: collect, normalise, measure, report; and curate one to train on."""

from collections.abc import Sequence

from experiments.lib.corpus.collect import DOCUMENTS_FILE, CollectConfig
from experiments.lib.corpus.collect import collect_documents as _collect_documents
from experiments.lib.corpus.curate import CurateConfig
from experiments.lib.corpus.curate import curate_corpus as _curate_corpus
from experiments.lib.corpus.measure import MeasureConfig
from experiments.lib.corpus.measure import measure_corpus as _measure_corpus
from experiments.lib.corpus.near_duplicates import NearDuplicateConfig
from experiments.lib.corpus.normalise import NormaliseConfig
from experiments.lib.corpus.normalise import normalise_documents as _normalise_documents
from experiments.lib.corpus.quality import QualityConfig
from experiments.lib.corpus.report import ReportConfig
from experiments.lib.corpus.report import write_report as _write_report
from marin_trace import StepRef, deferred, output, step, unversioned

collect_documents = deferred(_collect_documents)
normalise_documents = deferred(_normalise_documents)
measure_corpus = deferred(_measure_corpus)
write_report = deferred(_write_report)
curate_corpus = deferred(_curate_corpus)

QUALITY = QualityConfig()
NEAR_DUPLICATES = NearDuplicateConfig()


@step(name="documents/{name}")
def collected_documents(
    name: str, source: str, *, revision: str = "", suffixes: Sequence[str] = (), workers: int = 4
) -> StepRef:
    """The text files of a source; artifact: `Collection`."""
    return collect_documents(
        CollectConfig(
            source=source,
            output_path=output(),
            revision=revision,
            suffixes=tuple(suffixes),
            # How many threads read is no part of what is read: another number finds the same output.
            workers=unversioned(workers),
        )
    )


@step(name="corpus/{name}")
def normalised_corpus(name: str, documents: StepRef, *, shards: int = 4) -> StepRef:
    """The distinct documents of a collection, in shards; artifact: `NormalisedCorpus`."""
    return normalise_documents(
        NormaliseConfig(documents_path=documents / DOCUMENTS_FILE, output_path=output(), shards=shards)
    )


@step(name="statistics/{name}")
def corpus_statistics(name: str, corpus: StepRef, *, frequent_tokens: int = 5) -> StepRef:
    """The figures of a corpus; artifact: `CorpusStatistics`."""
    return measure_corpus(MeasureConfig(corpus_path=corpus, frequent_tokens=frequent_tokens))


@step(name="reports/{name}")
def corpus_report(name: str, title: str, documents: StepRef, corpus: StepRef, statistics: StepRef) -> StepRef:
    """A Markdown page about a corpus; artifact: `Report`.

    Reads nothing but artifacts: what the other steps returned, loaded when this one runs.
    """
    return write_report(
        ReportConfig(
            title=title,
            collection=documents.artifact,
            corpus=corpus.artifact,
            statistics=statistics.artifact,
            output_path=output(),
        )
    )


@step(name="curated/{name}")
def curated_corpus(
    name: str,
    inputs: Sequence[StepRef],
    *,
    text_field: str = "text",
    quality: QualityConfig | None = QUALITY,
    near_duplicates: NearDuplicateConfig | None = NEAR_DUPLICATES,
    validation_fraction: float = 0.05,
    shards: int = 4,
    workers: int = 1,
) -> StepRef:
    """Good, distinct documents in Parquet shards below `train` and `validation`; artifact: `CuratedCorpus`."""
    return curate_corpus(
        CurateConfig(
            input_paths=tuple(inputs),
            output_path=output(),
            text_field=text_field,
            quality=quality,
            near_duplicates=near_duplicates,
            validation_fraction=validation_fraction,
            shards=shards,
            # The shards are byte-identical for any number of workers.
            workers=unversioned(workers),
        )
    )
