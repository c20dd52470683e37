"""The node's daemon: follows the log, reconciles what this node is responsible for, and reports what it finds."""
