"""Generates the files that are made from the code: JSON Schemas, OpenAPI, the CLI's command cards, the reference."""
