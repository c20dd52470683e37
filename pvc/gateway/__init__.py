"""The HTTP API over the running fold: commands in, views, history and events out. The daemon serves it."""
