"""Layer 2: wires library functions into steps with `deferred`, `@step` and `output()`."""
