"""Measures a trained model on held-out documents. Imports JAX when it is called, not before."""

import logging
import math

from experiments.lib.evaluate.config import EvaluateConfig, ModelEvaluation

__all__ = ["evaluate_model"]

logger = logging.getLogger(__name__)


def evaluate_model(config: EvaluateConfig) -> ModelEvaluation:
    """Bits per byte and perplexity of a checkpoint over all documents of a store.

    Raises:
        ValueError: The store is of another vocabulary, or empty.
        FileNotFoundError: There is no such checkpoint.
    """
    from experiments.lib.evaluate.likelihood import document_losses
    from experiments.lib.token_store import TokenStore
    from experiments.lib.train.trained import load_model

    store = TokenStore.open(config.heldout_path)
    loaded = load_model(config.model_path, config.step, layout=config.layout)
    if store.vocab_size != loaded.description.vocab_size:
        raise ValueError(
            f"{config.heldout_path} has a vocabulary of {store.vocab_size} tokens, the model in {config.model_path} "
            f"one of {loaded.description.vocab_size}: tokenise the documents with the model's tokenizer"
        )
    nats = tokens = 0
    for loss, count in document_losses(loaded, store.documents(), batch_size=config.batch_size):
        nats += loss
        tokens += count
    if not store.num_bytes:
        raise ValueError(f"{config.heldout_path} holds no text to predict")
    evaluation = ModelEvaluation(
        step=config.step,
        documents=store.num_documents,
        bytes=store.num_bytes,
        tokens=tokens,
        bits_per_byte=nats / math.log(2) / store.num_bytes,
        perplexity=math.exp(nats / tokens),
    )
    logger.info(f"step {config.step}: {evaluation.bits_per_byte:.4f} bits per byte of {evaluation.bytes:,}")
    return evaluation
