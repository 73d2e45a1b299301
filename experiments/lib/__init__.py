"""Layer 1: plain functions that take and return concrete values, and know nothing of steps."""
