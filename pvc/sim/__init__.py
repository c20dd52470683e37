"""The node in one process on virtual time: real code, simulated ports, seeded faults, checks of what must hold."""
