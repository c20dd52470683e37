"""A node's signature under a request: what it is good for, and what it is not."""

from __future__ import annotations

import hashlib
import hmac

import msgspec
import pytest

from pvc.errors import Unauthenticated
from pvc.peers.credentials import MAX_SKEW_S, Question, check, is_signed, sign

SECRET, NOW_S = b"s" * 32, 1_700_000_000
QUESTION = Question(method="GET", target="/api/v1/log/replica?position=7", to="hv1")


def test_what_a_node_signed_tells_its_name() -> None:
    assert check(SECRET, QUESTION, sign(SECRET, QUESTION, node="hv2", now_s=NOW_S), now_s=NOW_S) == "hv2"


def test_the_header_is_made_as_the_manual_says() -> None:
    text = "PVC-Peer 1\nGET\n/api/v1/log/replica?position=7\nhv1\nhv2\n1700000000"
    digest = hmac.new(SECRET, text.encode(), hashlib.sha256).hexdigest()
    assert sign(SECRET, QUESTION, node="hv2", now_s=NOW_S) == f"PVC-Peer hv2 1700000000 {digest}"


@pytest.mark.parametrize(
    "changed",
    [{"method": "HEAD"}, {"target": "/api/v1/log/replica?position=8"}, {"target": "/api/v1/vms"}, {"to": "hv3"}],
)
def test_it_is_good_for_that_question_to_that_node_only(changed: dict[str, str]) -> None:
    header = sign(SECRET, QUESTION, node="hv2", now_s=NOW_S)
    with pytest.raises(Unauthenticated) as refusal:
        check(SECRET, msgspec.structs.replace(QUESTION, **changed), header, now_s=NOW_S)
    assert refusal.value.code == "access.peer_invalid"


def test_with_another_secret_it_is_nothing() -> None:
    with pytest.raises(Unauthenticated) as refusal:
        check(b"t" * 32, QUESTION, sign(SECRET, QUESTION, node="hv2", now_s=NOW_S), now_s=NOW_S)
    assert refusal.value.code == "access.peer_invalid"


@pytest.mark.parametrize("late_s", [MAX_SKEW_S + 1, -MAX_SKEW_S - 1, 86_400])
def test_an_old_one_and_one_from_the_future_are_refused_with_how_far_the_clocks_are_apart(late_s: int) -> None:
    header = sign(SECRET, QUESTION, node="hv2", now_s=NOW_S)
    with pytest.raises(Unauthenticated) as refusal:
        check(SECRET, QUESTION, header, now_s=NOW_S + late_s)
    assert refusal.value.code == "access.peer_clock"
    assert f"{late_s} s ago" in refusal.value.message


@pytest.mark.parametrize("late_s", [MAX_SKEW_S, -MAX_SKEW_S, 0])
def test_clocks_may_differ_by_some_minutes(late_s: int) -> None:
    header = sign(SECRET, QUESTION, node="hv2", now_s=NOW_S)
    assert check(SECRET, QUESTION, header, now_s=NOW_S + late_s) == "hv2"


def test_neither_the_name_nor_the_time_can_be_changed() -> None:
    header = sign(SECRET, QUESTION, node="hv2", now_s=NOW_S)
    for forged in (header.replace("hv2", "hv9"), header.replace(str(NOW_S), str(NOW_S + 1))):
        with pytest.raises(Unauthenticated) as refusal:
            check(SECRET, QUESTION, forged, now_s=NOW_S)
        assert refusal.value.code == "access.peer_invalid"


@pytest.mark.parametrize(
    "header",
    [
        "",
        "PVC-Peer",
        "PVC-Peer  ",
        "PVC-Peer hv2 1700000000",
        f"PVC-Peer hv2 1700000000 {'0' * 63}",
        f"PVC-Peer hv2 1700000000 {'0' * 64}",
        f"PVC-Peer HV2 1700000000 {'0' * 64}",
        f"PVC-Peer hv2 {'9' * 400} {'0' * 64}",
        f"PVC-Peer hv2\n 1700000000 {'0' * 64}",
        f"PVC-Peer hv2 1700000000 {'0' * 63}é",
        f"PVC-Peer hv2 ١ {'0' * 64}",
    ],
)
def test_what_is_no_signature_is_refused(header: str) -> None:
    with pytest.raises(Unauthenticated) as refusal:
        check(SECRET, QUESTION, header, now_s=NOW_S)
    assert refusal.value.code == "access.peer_invalid"


def test_a_token_is_no_signature() -> None:
    assert is_signed("PVC-Peer hv2 1 ff")
    assert is_signed("pvc-peer x")
    assert not is_signed("Bearer pvc_abc_def")
    assert not is_signed("")
