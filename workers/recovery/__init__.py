"""Reconcile ledger and Asterisk after an outage of the AMI link or of Redis."""
