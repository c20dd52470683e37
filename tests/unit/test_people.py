"""People's names and addresses: sealed on the way in, opened for readers, gone for good with the key."""

from __future__ import annotations

import json
import random
from collections.abc import Collection

import pytest

from pvc.clock import SystemClock, SystemRng
from pvc.errors import Unavailable
from pvc.events.access import ErasureRequested
from pvc.events.record import Actor
from pvc.events.sealed import erased_name, hidden_name, parse_sealed, shortened
from pvc.keyring.base import PersonKey, unreachable
from pvc.keyring.cipher import open_sealed, seal_name
from pvc.keyring.memory import MemoryKeyring
from pvc.runtime.people import People
from pvc.runtime.world import World
from tests.support.core import TinyCluster

ANNA = Actor(principal="anna", method="token", address="192.0.2.7", source="cli/0.1.0")


class Cut(MemoryKeyring):
    """A keyring that can be out of reach."""

    def __init__(self, shared: MemoryKeyring | None = None) -> None:
        super().__init__(shared)
        self.cut = False
        self.asked = 0

    async def find(self, principal: str) -> PersonKey | None:
        self._reach()
        return await super().find(principal)

    async def make(self, key: PersonKey) -> PersonKey:
        self._reach()
        return await super().make(key)

    async def read(self, ids: Collection[str]) -> dict[str, PersonKey]:
        self._reach()
        return await super().read(ids)

    def _reach(self) -> None:
        self.asked += 1
        if self.cut:
            raise unreachable("the test", "it is cut")


def people_on(keyring: MemoryKeyring, world: World | None = None) -> People:
    return People(keyring, world or World(), SystemClock(), SystemRng())


@pytest.fixture
def keyring() -> Cut:
    return Cut()


@pytest.fixture
def people(keyring: Cut) -> People:
    return people_on(keyring)


async def nobody_known(beginning: str) -> list[str]:
    return []


def erase(people: People, key: str) -> None:
    """As the log says it."""
    cluster = TinyCluster()
    entry = cluster.record(ErasureRequested(key=key))
    people._world.state.put_erasure(cluster.state.erasures[key])
    people.note(entry, (ErasureRequested(key=key),))


async def shown(people: People, text: str) -> str:
    answer: str = json.loads(await people.readable(json.dumps({"text": text}).encode()))["text"]
    return answer


async def test_a_sealed_actor_names_nobody_and_is_opened_again(people: People) -> None:
    sealed = await people.seal_actor(ANNA)
    assert "anna" not in repr(sealed) and "192.0.2" not in repr(sealed)
    assert (sealed.method, sealed.source) == (ANNA.method, ANNA.source)
    assert await shown(people, sealed.principal) == "anna"
    assert await shown(people, sealed.address) == "192.0.2.7"


async def test_equal_names_are_equal_texts_and_equal_addresses_are_not(people: People) -> None:
    one, other = await people.seal_actor(ANNA), await people.seal_actor(ANNA)
    assert one.principal == other.principal == await people.seal("anna") == await people.find("anna")
    assert one.address != other.address
    assert (await people.seal("bert")).partition("~")[2] != one.principal.partition("~")[2]


async def test_names_of_any_usual_length_are_texts_of_one_length(people: People) -> None:
    assert len({len(await people.seal(name)) for name in ("a", "anna", "a.very-long.name@example.org"[:31])}) == 1


@pytest.mark.parametrize(
    "actor", [Actor(principal="root", method="socket", source="cli/0.1.0"), Actor(principal="node/hv1", method="node")]
)
async def test_root_and_nodes_are_nobodys_name(people: People, keyring: Cut, actor: Actor) -> None:
    assert await people.seal_actor(actor) == actor
    assert keyring.asked == 0


async def test_an_actor_without_an_address_gets_none(people: People) -> None:
    sealed = await people.seal_actor(Actor(principal="anna", method="token"))
    assert sealed.address == ""


async def test_two_gateways_that_meet_a_person_first_agree(keyring: Cut) -> None:
    one, other = people_on(keyring), people_on(Cut(keyring))
    sealed = await one.seal_actor(ANNA)
    assert (await other.seal_actor(ANNA)).principal == sealed.principal
    assert await shown(people_on(Cut(keyring)), sealed.address) == "192.0.2.7"


async def test_without_the_keyring_a_person_in_memory_goes_on_and_another_is_refused(
    people: People, keyring: Cut
) -> None:
    before = await people.seal_actor(ANNA)
    keyring.cut = True
    again = await people.seal_actor(ANNA)
    assert again.principal == before.principal and await shown(people, again.address) == "192.0.2.7"
    assert await people.actors("anna", nobody_known) == ("anna", before.principal)
    for call in (people.seal("bert"), people.actors("bert", nobody_known), people.find("anna")):
        with pytest.raises(Unavailable) as refusal:
            await call
        assert refusal.value.code == "keyring.unreachable"


async def test_without_the_keyring_a_reader_sees_pseudonyms_and_asks_only_now_and_then(keyring: Cut) -> None:
    sealed = await people_on(keyring).seal_actor(ANNA)
    key = key_in(sealed.principal)
    reader = people_on(Cut(keyring))
    assert isinstance(reader.keyring, Cut)
    reader.keyring.cut = True
    for _ in range(3):
        assert await shown(reader, f"by {sealed.principal}.") == f"by {hidden_name(key)}."
        assert await shown(reader, sealed.address) == "sealed"
    assert reader.keyring.asked == 1
    assert shortened(sealed.principal) == hidden_name(key)


async def test_what_the_log_calls_erased_nobody_opens_though_the_key_is_still_there(people: People) -> None:
    sealed = await people.seal_actor(ANNA)
    key = key_in(sealed.principal)
    assert await shown(people, f"{sealed.principal} {sealed.address}") == "anna 192.0.2.7"
    erase(people, key)
    assert people._keys == {} and people._ids == {} and people._opened == {}
    assert await shown(people, sealed.principal) == erased_name(key)
    assert await shown(people, sealed.address) == "erased"
    assert await people.find("anna") == ""


async def test_a_key_that_is_gone_is_gone_without_a_word_in_the_log(keyring: Cut) -> None:
    sealed = await people_on(keyring).seal_actor(ANNA)
    await keyring.destroy(key_in(sealed.principal))
    reader = people_on(Cut(keyring))
    assert await shown(reader, sealed.principal) == erased_name(key_in(sealed.principal))


async def test_a_lost_key_that_is_restored_is_asked_for_again(keyring: Cut, monkeypatch: pytest.MonkeyPatch) -> None:
    sealed = await people_on(keyring).seal_actor(ANNA)
    copy = await keyring.find("anna")
    assert copy is not None
    await keyring.destroy(copy.id)
    reader = people_on(Cut(keyring))
    assert await shown(reader, sealed.principal) == erased_name(copy.id)
    assert await people_on(keyring).keep(copy)
    assert await shown(reader, sealed.principal) == erased_name(copy.id), "not asked for at each look"
    monkeypatch.setattr(reader.clock, "monotonic", lambda: 1e9)
    assert await shown(reader, sealed.principal) == "anna"


async def test_who_was_erased_and_acts_again_gets_a_new_key(people: People, keyring: Cut) -> None:
    first = await people.seal_actor(ANNA)
    erase(people, key_in(first.principal))
    second = await people.seal_actor(ANNA)
    assert key_in(second.principal) != key_in(first.principal)
    assert (
        await shown(people, f"{first.principal} {second.principal}") == f"{erased_name(key_in(first.principal))} anna"
    )
    assert await keyring.ids() == [key_in(second.principal)], "the old one made room"


async def test_the_holder_of_an_erased_persons_token_acts_under_the_pseudonym(people: People) -> None:
    principal = await people.seal("anna")
    erase(people, key_in(principal))
    acted = await people.seal_actor(Actor(principal=principal, method="token", address="192.0.2.8"))
    assert key_in(acted.principal) != key_in(principal)
    assert await shown(people, acted.principal) == erased_name(key_in(principal))
    assert await shown(people, acted.address) == "192.0.2.8"

    async def known(beginning: str) -> list[str]:
        return [principal] if principal.startswith(beginning) else []

    pseudonym = erased_name(key_in(principal))
    assert await people.actors(pseudonym, known) == (pseudonym, principal, acted.principal)


async def test_a_sealed_token_holder_keeps_the_sealed_name(people: People) -> None:
    principal = await people.seal("anna")
    acted = await people.seal_actor(Actor(principal=principal, method="token", address="192.0.2.8"))
    assert acted.principal == principal and await shown(people, acted.address) == "192.0.2.8"


async def test_records_of_before_are_found_and_shown_as_they_are(people: People) -> None:
    assert await shown(people, "anna") == "anna"
    assert await people.actors("anna", nobody_known) == ("anna",)
    assert await people.actors("root", nobody_known) == ("root",)
    assert await people.actors("node/hv1", nobody_known) == ("node/hv1",)


@pytest.mark.parametrize("name", ['qu"ote', "back\\slash", "öykü", "line\nbreak", "person~00000000~x"])
async def test_a_name_stays_a_name_in_json(people: People, name: str) -> None:
    sealed = await people.seal(name)
    assert await shown(people, f"<{sealed}>") == f"<{name}>"


async def test_what_only_looks_sealed_is_shown_without_a_failure(people: People) -> None:
    sealed = await people.seal("anna")
    cut, rng = sealed[:40], random.Random(1)
    _, key, box = sealed.split("~")
    forged = [f"person~{key}~{'A' * len(box)}", f"address~{key}~{box}", f"person~{key}~{rng.randbytes(10).hex()}"]
    for text in (cut, *forged):
        assert "anna" not in await shown(people, text)
    assert await shown(people, "person~nothing~at-all") == "person~nothing~at-all"


async def test_what_was_sealed_for_one_is_not_opened_as_anothers(people: People, keyring: Cut) -> None:
    anna, bert = await people.seal("anna"), await people.seal("bert")
    crossed = parse_sealed(f"person~{key_in(bert)}~{anna.rpartition('~')[2]}")
    key = await keyring.find("bert")
    assert crossed is not None and key is not None
    assert open_sealed(key, crossed) is None


async def test_a_body_without_names_is_passed_on_untouched(people: People, keyring: Cut) -> None:
    body = b'{"vms": [{"name": "web01", "description": "person of interest"}]}'
    assert await people.readable(body) is body
    assert keyring.asked == 0


async def test_neither_names_nor_keys_are_in_what_an_error_says(people: People, keyring: Cut) -> None:
    keyring.cut = True
    with pytest.raises(Unavailable) as refusal:
        await people.seal("anna.kowalska")
    assert "kowalska" not in f"{refusal.value!r} {refusal.value}"


def key_in(principal: str) -> str:
    sealed = parse_sealed(principal)
    assert sealed is not None
    return sealed.key


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("person~3f2a91c0~qwYVES6gq_7MtdvTAbP1jVZpwnDZl0TVEr1btaa2E4q56DRUlaexxx6kAtxqLRJt", "anna"),
        ("address~3f2a91c0~9bFlIkpYt5HfavHYvDZfjaIoQvwrg1WfsUC1kineuo69jyFij5TTryNG5Iw", "192.0.2.7"),
    ],
)
async def test_what_was_sealed_once_can_be_opened_for_ever(people: People, keyring: Cut, text: str, meant: str) -> None:
    key = await keyring.make(PersonKey(id="3f2a91c0", principal="anna", secret=bytes(range(64))))
    assert await shown(people, text) == meant
    assert meant != key.principal or seal_name(key) == text, "so it is found by equality"
