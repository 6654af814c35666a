"""Redis: the ledger (the state of every call) and the registry (what all cells share)."""
