"""Benchmarks: run them all with `make bench`, one with `python benchmarks/NAME.py`."""
