"""A decoder-only language model of the Llama family, in JAX.

config   LlamaConfig, and what follows from it: parameters, floating-point operations. Imports no JAX.
model    the parameters and the forward pass
export   the parameters as safetensors, the way other programs read them
"""
