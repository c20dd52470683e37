"""Nodes among themselves, over their gateways: how one proves that it is a node, and what it may fetch from another."""
