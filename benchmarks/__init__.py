"""Benchmarks of the dialer: `python -m benchmarks [name]`."""
