"""What the dialer does, in figures: `python -m benchmarks [name]`."""
