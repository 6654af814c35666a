"""Terminal monitor for supervisors: PBXs, cells, and what prevents calls."""
