"""Where sealed segments of the log are kept for good: the Archive protocol, a directory, a pool of Ceph, memory."""
