"""Where outputs and control files lie: the fsspec boundary (`files`) and the control store (`control_store`)."""
