"""What is true: ClusterState as the fold of the log, one evolve module per aggregate, and the views on it."""
