"""Measures a trained language model on held-out documents, beside models that count.

    config      what is evaluated and what comes out. Imports no JAX
    model       evaluate_model: bits per byte and perplexity of a checkpoint
    watch       watch_checkpoints: the same for each checkpoint of a training that still runs
    baselines   evaluate_baselines: the same figures of byte n-grams, in NumPy
    sample      sample_continuations: what the model writes
    ngram       a Kneser-Ney model of bytes
    likelihood  the log probability of each token of a document
    text        documents as bytes

Bits per byte compare models whatever their tokenizer: the information in the documents divided by their length in
UTF-8. Every model here predicts the end of each document too, and is charged for it.
"""
