"""From a file on the web to token stores, as an experiment does it, and what makes its steps run again."""

import json
import random
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from experiments.lib.download.fetch import Retries
from experiments.lib.download.files import RemoteFile
from experiments.lib.mixture import MixtureConfig, open_stores
from experiments.lib.token_store import TokenStore
from experiments.lib.tokenizer import load_tokenizer
from experiments.steps.corpus import curated_corpus
from experiments.steps.defaults import default_download, default_tokenize
from experiments.steps.download import downloaded_dataset, downloaded_files
from experiments.steps.tokenize import mixture, tokenized_dataset, trained_tokenizer
from marin_trace import StepRef, deferred, executor_main, lower, output, step, trace
from tests.experiments.web_server import Answer, Server

ROOT = Path(__file__).parents[3]
COMMIT = "0123456"
RAW = StepRef.hardcoded("/raw")


def texts(count: int, *, first: int = 0) -> list[str]:
    draw = random.Random(first)
    return [" ".join(f"word{draw.randrange(300)}" for _ in range(40)) + "\n" for _ in range(count)]


def records(documents: list[str]) -> bytes:
    return "".join(json.dumps({"text": text}) + "\n" for text in documents).encode()


def fingerprint(ref: StepRef) -> str:
    return lower(ref)[-1].fingerprint


@step(name="test/all")
def tokens_of(url: str, workers: int = 1) -> dict[str, StepRef]:
    raw = default_download("words", url, workers=workers)
    return {"raw": raw, "tokens": default_tokenize("words", raw, vocab_size=300, workers=workers)}


def test_a_file_on_the_web_becomes_token_stores(server: Server) -> None:
    documents = texts(60)
    refs = tokens_of(server.serve("/words.jsonl", Answer(content=records(documents))))
    run = executor_main(steps=[refs], argv=[])
    path = run.output_path(refs["tokens"])
    stores = [TokenStore.open(f"{path}/{split}") for split in ("train", "validation")]
    tokenizer = load_tokenizer(path)
    assert sorted(tokenizer.decode(ids.tolist()) for store in stores for ids in store.documents()) == sorted(documents)
    assert run.artifact(refs["tokens"]).train.tokens == stores[0].num_tokens
    assert run.artifact(refs["raw"]).files[0].size == len(records(documents))


def test_other_workers_run_nothing_again(server: Server) -> None:
    url = server.serve("/words.jsonl", Answer(content=records(texts(60))))
    executor_main(steps=[tokens_of(url)], argv=[])
    server.requests.clear()
    second = executor_main(steps=[tokens_of(url, workers=7)], argv=[])
    assert str(second).startswith("4 steps: 4 ")
    assert "built" not in str(second)
    assert server.requests == []


def test_a_step_whose_download_fails_goes_on_when_it_is_run_again(server: Server) -> None:
    content = records(texts(60))
    url = server.serve("/words.jsonl", Answer(content=content, stops_after=1000), Answer(status=404, content=b""))
    ref = default_download("words", url)
    with pytest.raises(ExceptionGroup, match="1 step") as caught:
        executor_main(steps=[ref], argv=[])
    assert "answers 404" in str(caught.value.exceptions[0])
    server.serve("/words.jsonl", Answer(content=content))
    server.requests.clear()
    executor_main(steps=[ref], argv=["--force_run_failed", "true"])
    assert server.ranges() == ["bytes=1000-"]


STEPS: dict[str, tuple[Callable[..., StepRef], dict]] = {
    "files": (downloaded_files, {"name": "a", "files": [RemoteFile("https://a.org/x")]}),
    "dataset": (downloaded_dataset, {"name": "a", "dataset_id": "a/b", "revision": COMMIT}),
    "corpus": (curated_corpus, {"name": "a", "inputs": [RAW]}),
    "tokenizer": (trained_tokenizer, {"name": "a", "inputs": [RAW]}),
    "tokens": (tokenized_dataset, {"name": "a", "train": [RAW], "validation": [RAW / "v"], "tokenizer": RAW / "bpe"}),
    "default_download": (default_download, {"name": "a", "source": "https://a.org/x"}),
    "default_tokenize": (default_tokenize, {"name": "a", "dataset": RAW}),
}


@pytest.mark.parametrize("name", [name for name in STEPS if name != "tokenizer"])
def test_how_the_work_is_done_is_not_what_is_made(name: str) -> None:
    build, arguments = STEPS[name]
    assert fingerprint(build(**arguments)) == fingerprint(build(**arguments, workers=9))


@pytest.mark.parametrize("name", ["files", "dataset"])
def test_patience_is_not_what_is_made(name: str) -> None:
    build, arguments = STEPS[name]
    assert fingerprint(build(**arguments)) == fingerprint(build(**arguments, retries=Retries(attempts=2)))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("files", {"files": [RemoteFile("https://a.org/x", sha256="ab")]}),
        ("dataset", {"revision": "7654321"}),
        ("dataset", {"allow_patterns": ["*.parquet"]}),
        ("corpus", {"shards": 5}),
        ("corpus", {"quality": None}),
        ("corpus", {"near_duplicates": None}),
        ("corpus", {"validation_fraction": 0.1}),
        ("tokenizer", {"vocab_size": 512}),
        ("tokens", {"end_of_document": "</s>"}),
        ("default_tokenize", {"tokenizer": RAW / "bpe"}),
        ("default_tokenize", {"vocab_size": 512}),
    ],
)
def test_what_changes_the_result_changes_the_fingerprint(name: str, change: dict) -> None:
    build, arguments = STEPS[name]
    assert fingerprint(build(**arguments)) != fingerprint(build(**arguments | change))


def test_data_sets_may_share_a_tokenizer() -> None:
    def both() -> None:
        first = default_tokenize("first", RAW)
        default_tokenize("second", RAW, first)

    names = [node.name for node in trace(both).nodes]
    assert names == ["curated/first", "tokenizers/first", "tokenized/first", "curated/second", "tokenized/second"]


@pytest.mark.parametrize(
    ("source", "options", "message"),
    [
        ("a/b", {"revision": "main"}, "revision 'main' of a/b is not a commit"),
        ("a/b", {"revision": COMMIT, "sha256": "ab"}, "revision is for a data set of the Hugging Face Hub"),
        ("https://a.org/x", {"allow_patterns": ["*"]}, "allow_patterns chooses among the files of a data set"),
        ([RemoteFile("https://a.org/x")], {"sha256": "ab"}, "sha256 is for one URL; give RemoteFile"),
    ],
)
def test_a_download_that_makes_no_sense_is_refused_while_tracing(source, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(default_download, "a", source, **options)


@dataclass(frozen=True)
class TrainConfig:
    """As the config of a training takes a mixture."""

    mixture: MixtureConfig
    output_path: str
    seeds: tuple[int, ...] = field(default=(0,))


def count_tokens(config: TrainConfig) -> dict[str, float]:
    stores = open_stores(config.mixture.paths)
    return {name: store.num_tokens * config.mixture.weights[name] for name, store in stores.items()}


count = deferred(count_tokens)


@step(name="test/train")
def trained(datasets: Mapping[str, StepRef], weights: Mapping[str, float]) -> StepRef:
    return count(TrainConfig(mixture=mixture(datasets, weights), output_path=output()))


def test_a_training_gets_the_stores_and_weights_of_a_mixture(server: Server) -> None:
    urls = {
        name: server.serve(f"/{name}.jsonl", Answer(content=records(texts(40, first=n)))) for n, name in enumerate("ab")
    }
    first = default_tokenize("a", default_download("a", urls["a"]), vocab_size=300)
    second = default_tokenize("b", default_download("b", urls["b"]), first)
    training = trained({"a": first, "b": second}, {"a": 3, "b": 0.5})
    run = executor_main(steps=[training], argv=[])
    stores = {name: TokenStore.open(f"{run.output_path(ref)}/train") for name, ref in (("a", first), ("b", second))}
    assert run.artifact(training) == {"a": 3 * stores["a"].num_tokens, "b": 0.5 * stores["b"].num_tokens}


def test_weights_of_other_data_sets_are_refused_while_tracing() -> None:
    with pytest.raises(ValueError, match=r"the data sets \['a'\], and weights of \['b'\]"):
        trace(trained, {"a": RAW}, {"b": 1.0})


HEAVY = ["datasketch", "huggingface_hub", "jax", "numpy", "pyarrow", "scipy", "tokenizers", "transformers"]


def test_tracing_needs_none_of_the_libraries_that_do_the_work() -> None:
    code = (
        "import sys\n"
        f"sys.modules.update(dict.fromkeys({HEAVY}))\n"  # whoever imports one of them fails
        "from experiments.steps.defaults import default_download, default_tokenize\n"
        "from experiments.steps.tokenize import mixture\n"
        "from marin_trace import lower\n"
        f"raw = default_download('a', 'a/b', revision='{COMMIT}')\n"
        "tokens = default_tokenize('a', raw)\n"
        "mixture({'a': tokens}, {'a': 1.0})\n"
        "print(len(lower(tokens)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("4\n", "")
