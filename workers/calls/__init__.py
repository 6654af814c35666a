"""The calls of this PBX: dialed, followed, and written to the ledger."""
