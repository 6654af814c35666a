"""Bring ledger and Asterisk together again after an outage of the AMI link or of Redis."""
