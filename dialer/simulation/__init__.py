"""Simulated PBX, simulated Multcall and embedded Valkey, all with the real protocols."""
