"""The rules of dialing, pure: no I/O, no clock, no randomness, no logging."""
