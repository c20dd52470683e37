"""The way to ZooKeeper: one session with deadlines on everything, and the words in which the ports speak to it."""
