"""Layer 3: small complete pipelines to run, read and copy."""
