"""Fixtures of the tests in a lab."""

from tests.lab.lab_fixtures import lab

__all__ = ["lab"]
