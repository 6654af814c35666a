"""Brings ledger and Asterisk together again after an outage of the link or of Redis."""
