"""The calls of this PBX: placed, followed, and written to the ledger."""
