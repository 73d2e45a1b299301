"""The shape of a Llama-style decoder, and what follows from it by arithmetic. Imports no JAX.

The field names are those of a Llama ``config.json``, so that an exported model says of itself what its recipe said.
"""

from dataclasses import dataclass

__all__ = ["LlamaConfig", "flops_per_token", "parameter_count"]


@dataclass(frozen=True)
class LlamaConfig:
    """The shape of the decoder. The vocabulary is not part of it: it comes with the data.

    Raises:
        ValueError: The sizes do not fit together.
    """

    hidden_size: int = 128
    """Width of the residual stream."""

    intermediate_size: int = 352
    """Width within the feed-forward layers: 8/3 of the hidden size gives SwiGLU the parameters of an MLP of 4."""

    num_hidden_layers: int = 4
    num_attention_heads: int = 4
    num_key_value_heads: int = 2
    """Grouped-query attention: so many heads of keys and values, each shared by an equal group of query heads."""

    rope_theta: float = 10_000.0
    """Base of the rotary wavelengths."""

    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = True
    """Whether the output layer is the embedding, transposed."""

    initializer_range: float = 0.02
    """Standard deviation of the initial weights."""

    def __post_init__(self) -> None:
        sizes = {name: value for name, value in vars(self).items() if name.endswith("_size") or name.startswith("num_")}
        if wrong := [f"{name}={value}" for name, value in sizes.items() if value < 1]:
            raise ValueError(f"every size of a model must be at least 1, not {', '.join(wrong)}")
        if self.hidden_size % (2 * self.num_attention_heads):
            raise ValueError(
                f"hidden_size={self.hidden_size} does not give {self.num_attention_heads} attention heads an even size "
                "each, which rotary embeddings need"
            )
        if self.num_attention_heads % self.num_key_value_heads:
            raise ValueError(
                f"{self.num_attention_heads} attention heads cannot share {self.num_key_value_heads} key-value heads "
                "equally: num_attention_heads must be a multiple of num_key_value_heads"
            )

    @property
    def head_dim(self) -> int:
        """Size of one attention head."""
        return self.hidden_size // self.num_attention_heads


def parameter_count(config: LlamaConfig, vocab_size: int) -> int:
    """How many numbers are learnt; tied embeddings count once.

    Example:
        >>> parameter_count(LlamaConfig(), vocab_size=4096)
        1262720
    """
    return (
        _matrix_parameters(config, vocab_size)
        + (0 if config.tie_word_embeddings else vocab_size * config.hidden_size)
        + (2 * config.num_hidden_layers + 1) * config.hidden_size
    )


def flops_per_token(config: LlamaConfig, vocab_size: int, sequence_length: int) -> int:
    """Floating-point operations of one training step for each token: forward and backward, nothing computed twice.

    Each parameter of a matrix costs a multiplication and an addition forward and twice that backward, 6 in all (Kaplan
    et al. 2020, section 2.1; Hoffmann et al. 2022, appendix F). Attention adds its scores and their weighted sum:
    12 · layers · hidden size · sequence length, half of which a causal mask leaves out and is counted all the same
    (Chowdhery et al. 2022, appendix B). The embedding is a look-up; its matrix counts once, as the output layer.
    """
    attention = 12 * config.num_hidden_layers * config.hidden_size * sequence_length
    return 6 * _matrix_parameters(config, vocab_size) + attention


def _matrix_parameters(config: LlamaConfig, vocab_size: int) -> int:
    """Of the matrices that every token is multiplied with, the output layer among them."""
    key_value_size = config.num_key_value_heads * config.head_dim
    attention = 2 * config.hidden_size * (config.hidden_size + key_value_size)
    feed_forward = 3 * config.hidden_size * config.intermediate_size
    return config.num_hidden_layers * (attention + feed_forward) + vocab_size * config.hidden_size
