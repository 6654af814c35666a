"""State of the worker's Asterisk, without the calls."""
