"""A text corpus, from files to figures: collect, normalise, measure, report.

Each module holds one function that does one step's work and can be called on its own::

    collect.collect_documents      files                →  documents.jsonl
    normalise.normalise_documents  documents.jsonl      →  shard-00000-of-00004.jsonl …
    measure.measure_corpus         the shards           →  CorpusStatistics
    report.write_report            CorpusStatistics     →  report.md

and a corpus to train on, from those documents or from data sets as they are published::

    curate.curate_corpus           JSON Lines, Parquet  →  train/shard-00000-of-00004.parquet …, validation/…

which normalises like the above, and takes ``quality`` for its filters, ``near_duplicates`` for what is nearly equal,
and ``records`` to read files.

All of them give the same result whatever the number of workers. Of Python files, what counts as an identifier is up to
the tokenizer of the Python that runs: from 3.12 on it looks into f-strings.
"""
