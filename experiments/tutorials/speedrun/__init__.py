"""Layer 3: one complete run each, from data to a page, for one shape of model."""
