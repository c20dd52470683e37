"""Where records live: the Log protocol and its backends (memory, SQLite, ZooKeeper), and the history index."""
