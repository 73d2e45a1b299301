"""A text corpus, from files to figures: collect, normalise, measure, report.

Each module holds one function that does one step's work and can be called on its own::

    collect.collect_documents      files                →  documents.jsonl
    normalise.normalise_documents  documents.jsonl      →  shard-00000-of-00004.jsonl …
    measure.measure_corpus         the shards           →  CorpusStatistics
    report.write_report            CorpusStatistics     →  report.md

All of them give the same result whatever the number of workers. Of Python files, what counts as an identifier is up to
the tokenizer of the Python that runs: from 3.12 on it looks into f-strings.
"""
