"""Simulated Multcall: pushes requests, sends a code for each ACK, checks every Response."""
