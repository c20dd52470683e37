"""The running fold that node and gateway share: World (state that follows the log) and Appender (the way into it)."""
