"""Lets a trained model go on with some texts. Imports JAX when it is called, not before."""

from typing import Any

from experiments.lib.evaluate.config import Sample, SampleConfig, Samples

__all__ = ["sample_continuations"]


def sample_continuations(config: SampleConfig) -> Samples:
    """Goes on with each prompt until the model ends the document or enough tokens are there.

    Of a prompt that leaves no room for the new tokens the beginning is left out of what the model reads. The same
    configuration gives the same texts on the same kind of device.

    Raises:
        ValueError: The new tokens alone are more than the model can read, or the temperature is negative.
    """
    from experiments.lib.evaluate.generate import generate
    from experiments.lib.tokenizer import load_tokenizer
    from experiments.lib.train.trained import load_model

    if not config.prompts:
        return Samples(config.step, config.temperature, config.seed, ())
    loaded = load_model(config.model_path, config.step, layout=config.layout)
    tokenizer = load_tokenizer(config.tokenizer_path)
    end = loaded.description.end_of_document
    prompts = [[end, *tokenizer.encode(prompt).ids] for prompt in config.prompts]
    generated = generate(
        loaded, prompts, max_new_tokens=config.max_new_tokens, temperature=config.temperature, seed=config.seed
    )
    samples = (
        _sample(prompt, tokens, end, tokenizer) for prompt, tokens in zip(config.prompts, generated, strict=True)
    )
    return Samples(config.step, config.temperature, config.seed, tuple(samples))


def _sample(prompt: str, tokens: list[int], end: int, tokenizer: Any) -> Sample:
    finished = end in tokens
    written = tokens[: tokens.index(end)] if finished else tokens
    return Sample(prompt, tokenizer.decode(written, skip_special_tokens=False), finished)
