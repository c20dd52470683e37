"""The node, or a cluster of them, in one process on virtual time: real code, simulated ports, seeded faults, checks."""
