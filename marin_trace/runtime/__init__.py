"""StepSpec → outputs: status, cache, lock, artifact, records and the runner, each usable alone."""
