"""The pure parts of webhooks: bodies, signatures, sealed secrets, the schedule, filters, cursors."""

from __future__ import annotations

import base64
import datetime
import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cloudevents.core.bindings.http import HTTPMessage, from_http_event
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook as StandardWebhook
from standardwebhooks import WebhookVerificationError

from pvc.clock import SystemRng
from pvc.commands.access_rights import Rights
from pvc.errors import Unavailable
from pvc.events.record import Record
from pvc.events.webhook import SealedSecret, Signature, WebhookSettings
from pvc.log.history_file import HistoryFile
from pvc.log.history_search import HistoryQuery
from pvc.projections.webhook_state import Replay, Secret, Webhook
from pvc.webhooks import cursor as c
from pvc.webhooks.course import DELAYS_S, DISABLE_AFTER_US, Answer, Course, Verdict, after, resumed
from pvc.webhooks.filter import sent
from pvc.webhooks.message import Item, body_of, message_id, ping_body
from pvc.webhooks.signing import NewSecret, headers_of, make_secret, open_secret
from tests.support.core import a_cluster_with_vm
from tests.support.deliveries import keys_without_index

KEY = bytes(range(32))
NOW_US = 1_738_324_800_123_456
CLUSTER = "7c1de2a4-5d0b-5f3a-8b21-6e2f4c9d8b10"


def a_hook(*secrets: SealedSecret, **settings: Any) -> Webhook:
    chosen = {"url": "https://hooks.example.com/", **settings}
    kept = tuple(Secret(sealed=secret, since_us=1) for secret in secrets)
    return Webhook(id="h1", name="billing", settings=WebhookSettings(**chosen), secrets=kept, after=0)


def a_secret(kind: Signature = Signature.HMAC, key: bytes = KEY, name: str = "billing") -> NewSecret:
    return make_secret(kind, name, key, SystemRng())


def records() -> list[Record]:
    cluster = a_cluster_with_vm("running", tags=("shop",))
    return [entry.record for entry in cluster.entries]


def items() -> list[Item]:
    return [Item(record=record, index=index) for record in records() for index in range(len(record.events))]


def now_s() -> int:
    return int(datetime.datetime.now(datetime.UTC).timestamp())


def test_a_body_is_a_cloud_event_to_the_official_library() -> None:
    for item in items():
        body = body_of(CLUSTER, [item], batched=False)
        message = HTTPMessage({"content-type": "application/cloudevents+json; charset=utf-8"}, body)
        found = from_http_event(message)
        assert found.get_specversion() == "1.0"
        assert found.get_id() == message_id(CLUSTER, [item]) == f"{CLUSTER}-{item.position}-{item.index}"
        assert found.get_source() == f"urn:pvc:cluster:{CLUSTER}"
        assert found.get_type() == item.type
        assert found.get_subject()
        assert found.get_time() is not None
        data: Any = found.get_data()
        assert data["position"] == item.position and data["summary"]
        assert "." not in found.get_id(), "the signed text has dots between its parts"


def test_a_batch_is_an_array_of_them_and_its_id_says_which() -> None:
    some = items()[:3]
    body = json.loads(body_of(CLUSTER, some, batched=True))
    assert [event["id"] for event in body] == [message_id(CLUSTER, [item]) for item in some]
    assert message_id(CLUSTER, some) == f"{body[0]['id']}-to-{some[-1].position}-{some[-1].index}"
    assert len(json.loads(body_of(CLUSTER, some[:1], batched=True))) == 1
    assert json.loads(ping_body(CLUSTER, "billing", "ping-1", "c", NOW_US, batched=True))[0]["data"]["challenge"] == "c"


def test_an_hmac_signature_is_right_to_the_official_library_and_only_with_its_secret() -> None:
    made, other = a_secret(), a_secret()
    body = body_of(CLUSTER, items()[:1], batched=False)
    headers = headers_of(a_hook(made.sealed), "m-1", body, KEY, now_s() * 1_000_000)
    assert made.shown.startswith("whsec_")
    assert StandardWebhook(made.shown).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        StandardWebhook(other.shown).verify(body, headers)
    with pytest.raises(WebhookVerificationError):
        StandardWebhook(made.shown).verify(body + b" ", headers)
    with pytest.raises(WebhookVerificationError):
        StandardWebhook(made.shown).verify(body, {**headers, "webhook-id": "m-2"})
    with pytest.raises(WebhookVerificationError, match="too old"):
        StandardWebhook(made.shown).verify(body, headers_of(a_hook(made.sealed), "m-1", body, KEY, NOW_US))


def test_an_ed25519_signature_is_right_with_the_public_key_that_is_shown() -> None:
    made = a_secret(Signature.ED25519)
    hook = a_hook(made.sealed, signature=Signature.ED25519)
    headers = headers_of(hook, "m-1", b"{}", KEY, NOW_US)
    assert made.shown == made.sealed.public and made.shown.startswith("whpk_")
    public = Ed25519PublicKey.from_public_bytes(base64.b64decode(made.shown.removeprefix("whpk_")))
    version, _, text = headers["webhook-signature"].partition(",")
    assert version == "v1a"
    signed = f"m-1.{headers['webhook-timestamp']}.".encode() + b"{}"
    public.verify(base64.b64decode(text), signed)
    with pytest.raises(InvalidSignature):
        public.verify(base64.b64decode(text), signed + b"x")


def test_while_secrets_overlap_both_sign_and_after_it_the_newest_alone() -> None:
    old, new = a_secret(), a_secret()
    ending = Secret(sealed=old.sealed, since_us=1, until_us=now_s() * 1_000_000 + 60_000_000)
    hook = msgspec.structs.replace(a_hook(new.sealed), secrets=(ending, Secret(sealed=new.sealed, since_us=2)))
    during = headers_of(hook, "m-1", b"{}", KEY, now_s() * 1_000_000)
    assert StandardWebhook(old.shown).verify(b"{}", during) == StandardWebhook(new.shown).verify(b"{}", during) == {}
    later = headers_of(hook, "m-1", b"{}", KEY, (now_s() + 120) * 1_000_000)
    assert StandardWebhook(new.shown).verify(b"{}", later) == {}
    with pytest.raises(WebhookVerificationError):
        StandardWebhook(old.shown).verify(b"{}", later)


def test_a_sealed_secret_opens_with_its_key_for_its_webhook_alone() -> None:
    made = a_secret()
    hook = a_hook(made.sealed)
    assert base64.b64decode(made.shown.removeprefix("whsec_")) == open_secret(hook, made.sealed, KEY)
    assert made.shown.removeprefix("whsec_") not in made.sealed.box
    bad = [
        (hook, made.sealed, bytes(32)),
        (msgspec.structs.replace(hook, name="other"), made.sealed, KEY),
        (hook, msgspec.structs.replace(made.sealed, id="00000000"), KEY),
        (hook, msgspec.structs.replace(made.sealed, box=made.sealed.box[:-8] + "AAAAAAA="), KEY),
        (hook, msgspec.structs.replace(made.sealed, box=""), KEY),
    ]
    for given in bad:
        with pytest.raises(Unavailable) as refusal:
            open_secret(*given)
        assert refusal.value.code == "webhook.secret_unreadable"


FAILED = Answer(status=500)
ALL = Rights(everything=True)


def fail(course: Course, now_us: int = NOW_US, answer: Answer = FAILED, **more: Any) -> tuple[Course, Verdict]:
    return after(course, answer, **{"tries": 10, "now_us": now_us, "random": 0.5, **more})


def test_the_schedule_is_that_of_standard_webhooks_and_ends_with_parking() -> None:
    course, waits, verdict, now_us = Course(), [], Verdict.RETRY, NOW_US
    while verdict is Verdict.RETRY:
        course, verdict = fail(course, now_us)
        waits.append((course.not_before_us - now_us) / 1e6)
        now_us = course.not_before_us
    assert waits[:-1] == pytest.approx(list(DELAYS_S[1:]))
    assert verdict is Verdict.PARK and course.tries == 0
    assert course.open and waits[-1] == pytest.approx(60), "the next event waits too: the receiver is down"


@pytest.mark.parametrize(("random", "factor"), [(0.0, 0.8), (0.5, 1.0), (1.0, 1.2)])
def test_a_delay_is_drawn_around_the_schedules(random: float, factor: float) -> None:
    course, _ = fail(Course(), random=random)
    assert (course.not_before_us - NOW_US) / 1e6 == pytest.approx(5 * factor)


def test_a_receiver_may_ask_for_a_longer_break_but_not_for_good() -> None:
    asked, _ = fail(Course(), answer=Answer(status=429, retry_after_s=3600))
    assert asked.not_before_us - NOW_US == 3_600_000_000
    shorter, _ = fail(Course(), answer=Answer(status=503, retry_after_s=1))
    assert shorter.not_before_us - NOW_US == 5_000_000
    for_good, _ = fail(Course(), answer=Answer(status=503, retry_after_s=1e9))
    assert for_good.not_before_us - NOW_US == 86_400_000_000


@pytest.mark.parametrize("status", [0, 100, 300, 301, 307, 400, 404, 429, 500, 503, 599])
def test_only_a_status_from_200_to_299_is_success(status: int) -> None:
    assert fail(Course(), answer=Answer(status=status))[1] is Verdict.RETRY
    assert fail(Course(tries=3, failures=7), answer=Answer(status=202)) == (Course(), Verdict.DELIVERED)


def test_410_and_days_without_success_disable_and_lose_nothing() -> None:
    assert fail(Course(), answer=Answer(status=410))[1] is Verdict.DISABLE
    long_ago = Course(tries=9, failures=19, failing_since_us=NOW_US - DISABLE_AFTER_US)
    assert fail(long_ago)[1] is Verdict.DISABLE
    assert fail(Course(tries=9, failures=9, failing_since_us=NOW_US - DISABLE_AFTER_US + 1))[1] is Verdict.PARK


def test_a_batch_that_fails_is_no_try_of_its_first_event_and_is_tried_one_by_one() -> None:
    course, verdict = fail(Course(), alone=False, tries=1)
    assert (verdict, course.tries, course.size) == (Verdict.RETRY, 0, 1)
    assert fail(course, tries=1)[1] is Verdict.PARK
    sizes = [course.size]
    for _ in range(4):
        course, _ = fail(course, answer=Answer(status=200))
        sizes.append(course.size)
    assert sizes == [1, 2, 4, 8, 16]


def test_a_resume_forgets_what_was_counted() -> None:
    assert resumed(Course(tries=3, failures=8, not_before_us=NOW_US, error="x")) == Course(size=1)


def test_tags_are_those_of_the_event_and_not_of_today(tmp_path: Path) -> None:
    cluster = a_cluster_with_vm("stopped", tags=("shop",))
    for command, fields in (
        ("vm.set_autostart", {"autostart": True}),
        ("vm.remove_tag", {"tag": "shop"}),
        ("vm.set_autostart", {"autostart": False}),
        ("vm.add_tag", {"tag": "shop"}),
        ("vm.disable", {}),
        ("vm.remove", {}),
    ):
        cluster.do(command, vm="web01", **fields)
    file = HistoryFile(tmp_path / "history.db")
    file.index(cluster.entries)
    settings = WebhookSettings(url="u", tags=("shop",))
    types = [
        found.keys.events[index].type
        for found in file.events(HistoryQuery(after=0, ascending=True, limit=100))
        for index in sent(settings, found.keys, cluster.state, ALL)
    ]
    file.close()
    assert types == ["vm.defined", "vm.autostart_set", "vm.tag_removed", "vm.tag_added", "vm.disabled", "vm.removed"]


@pytest.mark.parametrize(
    ("settings", "types"),
    [
        ({"types": ("vm.defined",)}, {"vm.defined"}),
        ({"types": ("node.*",)}, {"node.ready", "node.joined"}),
        ({"subjects": ("cluster",)}, {"cluster.initialised"}),
        ({"subjects": ("node/hv1",), "types": ("node.ready",)}, {"node.ready"}),
        ({"subjects": ("node/hv2",)}, set()),
    ],
)
def test_an_endpoint_is_sent_what_matches_all_of_its_filters(settings: dict[str, Any], types: set[str]) -> None:
    chosen = WebhookSettings(url="u", **settings)
    state = a_cluster_with_vm("running").state
    found = {
        record.events[index].type
        for record in records()
        for index in sent(chosen, keys_without_index(record), state, ALL)
    }
    assert found <= types and (found or not types)


def test_a_replay_comes_before_what_is_next_and_what_comes_anyway_is_not_sent_twice() -> None:
    hook = msgspec.structs.replace(a_hook(), replays=(Replay(at=50, first=10, last=60, time_us=0),))
    cursor = c.take_up(c.Cursor(hook="h1", way=(c.Span(next=40, index=1),)), hook)
    assert cursor.way == (c.Span(next=10, until=39), c.Span(next=40))
    assert c.take_up(cursor, hook) == cursor, "once"
    cursor = c.advance(cursor, 39, 1)
    assert cursor.way[0] == c.Span(next=39, index=1, until=39)
    assert c.advance(cursor, 40, 0).way == (c.Span(next=40),)


def test_many_replays_of_a_paused_endpoint_are_covered_by_one() -> None:
    replays = tuple(Replay(at=1000 + n, first=1 + n, last=5 + n, time_us=0) for n in range(c.MAX_SPANS + 1))
    hook = msgspec.structs.replace(a_hook(), replays=replays)
    cursor = c.take_up(c.Cursor(hook="h1", way=(c.Span(next=500),)), hook)
    assert cursor.way == (c.Span(next=1, until=5 + c.MAX_SPANS), c.Span(next=500))


@pytest.mark.parametrize("data", [b"", b"{", b'{"hook":"h1","way":[]}', b'{"hook":"h1","way":[{"next":1,"until":2}]}'])
def test_a_damaged_cursor_is_noticed(data: bytes) -> None:
    with pytest.raises(msgspec.MsgspecError):
        c.decode(data)
