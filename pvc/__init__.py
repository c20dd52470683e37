"""PVC, the Parallel Virtual Cluster: an event-sourced private cloud of Debian hypervisors."""

__version__ = "0.1.0"
