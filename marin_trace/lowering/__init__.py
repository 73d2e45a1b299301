"""Lowering: graphs to StepSpecs. No I/O."""
