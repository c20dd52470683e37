"""The process `pvcd`: reads its configuration, wires node and gateway to the real ports, and runs them."""
