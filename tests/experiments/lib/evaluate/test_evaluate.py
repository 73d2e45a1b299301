"""A trained model is measured and sampled."""

import math
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from experiments.lib.evaluate.baselines import evaluate_baselines
from experiments.lib.evaluate.config import BaselineConfig, EvaluateConfig, SampleConfig
from experiments.lib.evaluate.likelihood import document_losses, document_windows
from experiments.lib.evaluate.model import evaluate_model
from experiments.lib.evaluate.sample import sample_continuations
from experiments.lib.llama.model import cross_entropy
from experiments.lib.token_store import TokenStore, write_token_store
from experiments.lib.train.config import Layout
from experiments.lib.train.trained import LoadedModel, load_model
from tests.training_runs import write_tokenizer


@pytest.fixture(scope="module")
def loaded(trained: Path) -> LoadedModel:
    return load_model(str(trained / "model"), 12, layout=Layout())


@given(st.integers(0, 100), st.integers(1, 20))
def test_windows_predict_each_token_once_from_half_a_window_or_more(size: int, length: int) -> None:
    document = np.arange(1, size + 1, dtype=np.int32)
    predicted: list[int] = []
    for window in document_windows(document, 0, length):
        assert len(window.tokens) <= length + 1
        assert window.first == 0 or window.first >= length // 2
        predicted += window.tokens[1 + window.first :].tolist()
    assert predicted == [*document.tolist(), 0]


def test_the_loss_of_short_documents_is_that_of_the_model(loaded: LoadedModel) -> None:
    documents = [np.array([3, 4, 6], np.int32), np.array([9], np.int32), np.array([], np.int32)]
    parts = list(document_losses(loaded, documents, batch_size=2))
    expected = 0.0
    for document in documents:
        tokens = jnp.array([[0, *document.tolist(), 0]])
        expected += float(cross_entropy(loaded.model(tokens[:, :-1]), tokens[:, 1:]).sum())
    assert sum(tokens for _, tokens in parts) == 4 + 2 + 1
    assert sum(nats for nats, _ in parts) == pytest.approx(expected, rel=1e-5)


def test_bits_per_byte_are_the_loss_over_the_bytes(trained: Path) -> None:
    evaluation = evaluate_model(EvaluateConfig(str(trained / "model"), 12, str(trained / "validation")))
    store = TokenStore.open(str(trained / "validation"))
    assert (evaluation.documents, evaluation.bytes) == (store.num_documents, store.num_bytes)
    assert evaluation.tokens == store.num_tokens
    bits = evaluation.tokens * math.log2(evaluation.perplexity) / evaluation.bytes
    assert evaluation.bits_per_byte == pytest.approx(bits)
    assert evaluation.perplexity < 32


def test_a_store_of_another_vocabulary_is_refused(trained: Path, tmp_path: Path) -> None:
    write_token_store(str(tmp_path / "other"), [[1]], vocab_size=9, end_of_document=0, num_bytes=1)
    with pytest.raises(ValueError, match=r"other has a vocabulary of 9 tokens, the model in \S+ one of 32"):
        evaluate_model(EvaluateConfig(str(trained / "model"), 12, str(tmp_path / "other")))


def test_baselines_predict_the_same_documents(trained: Path, tmp_path: Path) -> None:
    write_tokenizer(tmp_path / "tokenizer")
    config = BaselineConfig(str(trained / "train"), str(trained / "validation"), str(tmp_path / "tokenizer"), order=3)
    baselines = evaluate_baselines(config)
    store = TokenStore.open(str(trained / "validation"))
    assert (baselines.documents, baselines.bytes) == (store.num_documents, store.num_bytes)
    # A document goes up by one or two: little more than a bit.
    assert 1 < baselines.ngram_bits_per_byte < 1.5 < baselines.unigram_bits_per_byte < 6


class TestSamples:
    @pytest.fixture
    def config(self, trained: Path, tmp_path: Path) -> SampleConfig:
        write_tokenizer(tmp_path / "tokenizer")
        return SampleConfig(
            str(trained / "model"), 12, str(tmp_path / "tokenizer"), ("ABC", "", "A" * 40), max_new_tokens=8
        )

    def test_a_seed_gives_the_same_texts_again(self, config: SampleConfig) -> None:
        samples = sample_continuations(config)
        assert samples == sample_continuations(config)
        assert [sample.prompt for sample in samples.samples] == ["ABC", "", "A" * 40]
        assert all(sample.finished or len(sample.continuation) == 8 for sample in samples.samples)

    def test_more_than_the_model_can_read_is_refused(self, config: SampleConfig) -> None:
        from dataclasses import replace

        with pytest.raises(ValueError, match="max_new_tokens must be from 1 to 15, what the model can read, not 16"):
            sample_continuations(replace(config, max_new_tokens=16))

    def test_at_temperature_zero_the_most_probable_token_is_taken(
        self, config: SampleConfig, loaded: LoadedModel
    ) -> None:
        from dataclasses import replace

        greedy = sample_continuations(replace(config, temperature=0.0, max_new_tokens=1, prompts=("ABC",)))
        token = int(loaded.model(jnp.array([[0, 1, 2, 3]]))[0, -1].argmax())
        assert greedy.samples[0].continuation == chr(ord("A") + token - 1)
