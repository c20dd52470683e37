"""Any request to any endpoint, by anybody: a reply that is documented, a log that verifies, a gateway that goes on."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from pvc.gateway.app import all_endpoints
from tests.fuzz.any_request import AnyRequest, any_request, cards_of
from tests.fuzz.asked import Asked

EXAMPLES = 700


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Asked]:
    asked = Asked(tmp_path_factory.mktemp("fuzz"))
    yield asked
    asked.still_well()
    asked.close()


def test_each_endpoint_can_be_asked_from_what_it_says_of_itself() -> None:
    endpoints = all_endpoints()
    assert len(endpoints) > 40
    assert all(cards_of(endpoint) for endpoint in endpoints if endpoint.command is not None)


@settings(
    max_examples=EXAMPLES,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture],
)
@given(request_made=any_request())
def test_any_request_has_a_reply_that_is_documented(
    gateway: Asked, request_made: AnyRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.clear()
    gateway.ask(request_made)
    assert not [record for record in caplog.records if record.exc_info and record.levelno >= logging.ERROR]
