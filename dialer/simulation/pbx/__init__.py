"""Simulated Asterisk: AMI on a real TCP port, calls with realistic timing."""
