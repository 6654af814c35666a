"""A simulated Multcall: it pushes requests, answers ACKs and checks every Response."""
