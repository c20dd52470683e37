"""Proofs about the log: its Merkle tree, signed checkpoints, exported files, and the verification of all three.

This package stands alone. It imports nothing else of PVC, so that an auditor can verify a file and a signature without
a daemon, a cluster or trust in either; what it finds wrong it says in values of its own (`pvc.proof.findings`).
"""
