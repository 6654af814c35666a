"""What this worker knows of its Asterisk apart from the calls."""
