"""Experiments: library functions (`lib`), their wiring into steps (`steps`), and pipelines (`tutorials`)."""
