"""Tracing: user functions to graphs. No I/O."""
