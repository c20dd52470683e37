"""Who is there: the Presence protocol and its backends (memory, ZooKeeper, alone): membership, lease, election."""
