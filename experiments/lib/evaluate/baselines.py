"""How well models that only count bytes predict held-out documents: what a trained model has to beat."""

import logging

from experiments.lib.evaluate.config import BaselineConfig, BaselineEvaluation

__all__ = ["evaluate_baselines"]

logger = logging.getLogger(__name__)


def evaluate_baselines(config: BaselineConfig) -> BaselineEvaluation:
    """Bits per byte of a unigram and of an n-gram model over all documents of a store.

    About 2 s for each 10 MB that are counted, on one core.

    Raises:
        ValueError: The order is out of range, or a store holds no text.
    """
    from experiments.lib.evaluate.ngram import KneserNey, count_unigrams, unigram_bits
    from experiments.lib.evaluate.text import document_bytes
    from experiments.lib.token_store import TokenStore
    from experiments.lib.tokenizer import load_tokenizer

    tokenizer = load_tokenizer(config.tokenizer_path)
    train: list[bytes] = []
    train_bytes = 0
    for document in document_bytes(TokenStore.open(config.train_path), tokenizer):
        train.append(document)
        train_bytes += len(document)
        if train_bytes >= config.max_train_bytes:
            break
    heldout = list(document_bytes(TokenStore.open(config.heldout_path), tokenizer))
    heldout_bytes = sum(map(len, heldout))
    if not heldout_bytes:
        raise ValueError(f"{config.heldout_path} holds no text to predict")
    evaluation = BaselineEvaluation(
        order=config.order,
        train_bytes=train_bytes,
        documents=len(heldout),
        bytes=heldout_bytes,
        unigram_bits_per_byte=unigram_bits(count_unigrams(train), count_unigrams(heldout)) / heldout_bytes,
        ngram_bits_per_byte=KneserNey(train, config.order).bits(heldout) / heldout_bytes,
    )
    logger.info(
        f"unigram {evaluation.unigram_bits_per_byte:.4f}, n-gram {evaluation.ngram_bits_per_byte:.4f} bits/byte"
    )
    return evaluation
