"""Mutation testing: plants small faults in the code and reports those that no test notices."""
