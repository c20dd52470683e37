"""Webhooks: the log's events posted to endpoints, in order, each at least once."""
