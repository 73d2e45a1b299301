"""Shapes of Llama models, and their tokenizer."""

from marin.training.training import ModelConfig, SimpleTrainConfig, TpuSlice

llama3_tokenizer = "meta-llama/Meta-Llama-3.1-8B"
llama3_instruct_tokenizer = "meta-llama/Meta-Llama-3.1-8B-Instruct"

llama_nano = ModelConfig(hidden_dim=32, num_layers=2, num_heads=2, seq_len=512)
llama_75m = ModelConfig(hidden_dim=512, num_layers=6)
llama_150m = ModelConfig(hidden_dim=512, num_layers=6, num_heads=8, seq_len=1024)
llama_350m = ModelConfig(hidden_dim=1024, num_layers=24, num_heads=16)
llama_1_4b = ModelConfig(hidden_dim=2048, num_layers=16, num_heads=16)
llama_8b = ModelConfig(hidden_dim=4096, num_layers=32, num_heads=32)
llama_32b = ModelConfig(hidden_dim=5120, num_layers=64, num_heads=40)

llama_1_4b_train_config = SimpleTrainConfig(
    resources=TpuSlice("v4-128"),
    train_batch_size=1024,
    num_train_steps=10_000,
    learning_rate=3e-4,
)


def compute_num_parameters(config: ModelConfig, vocab_size: int) -> int:
    """Roughly."""
    return 12 * config.num_layers * config.hidden_dim**2 + vocab_size * config.hidden_dim
