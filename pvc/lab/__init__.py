"""A real cluster's parts on one machine, for the demo and the tests: a tiny guest, a private libvirt."""
