"""What every Keyring must do. A backend's test gives keyrings that share what they keep."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from pvc.clock import SystemRng
from pvc.errors import Unavailable
from pvc.keyring.base import IdTaken, Keyring, PersonKey, new_key

Open = Callable[[], Awaitable[Keyring]]
"""Another keyring on the same keys."""

RNG = SystemRng()


class KeyringContract:
    @pytest.fixture
    def open_keyring(self) -> Open:
        raise NotImplementedError

    async def test_a_key_that_was_made_is_found_by_name_and_id_by_everybody(self, open_keyring: Open) -> None:
        one, other = await open_keyring(), await open_keyring()
        key = new_key("anna", RNG)
        assert await one.make(key) == key
        for keyring in (one, other, await open_keyring()):
            assert await keyring.find("anna") == key
            assert await keyring.read([key.id, "00000000"]) == {key.id: key}
            assert await keyring.ids() == [key.id]

    async def test_who_is_unknown_has_no_key(self, open_keyring: Open) -> None:
        keyring = await open_keyring()
        assert await keyring.find("anna") is None
        assert await keyring.read(["00000000"]) == {}
        assert await keyring.read([]) == {}
        assert await keyring.ids() == []
        await keyring.destroy("00000000")

    async def test_a_person_has_one_key_whoever_makes_another(self, open_keyring: Open) -> None:
        one, other = await open_keyring(), await open_keyring()
        first = await one.make(new_key("anna", RNG))
        assert await other.make(new_key("anna", RNG)) == first
        assert await one.make(first) == first, "once more, as after a lost reply"
        assert await one.ids() == [first.id]

    async def test_of_many_first_keys_at_once_all_get_the_same(self, open_keyring: Open) -> None:
        keyrings = [await open_keyring() for _ in range(3)]
        made = await asyncio.gather(*(keyring.make(new_key("anna", RNG)) for keyring in keyrings * 4))
        assert len({key.id for key in made}) == 1
        assert await keyrings[0].ids() == [made[0].id]

    async def test_people_have_keys_of_their_own(self, open_keyring: Open) -> None:
        keyring = await open_keyring()
        names = ["anna", "Anna", "anna@example.org", "öykü", "a" * 63, "a/../b"]
        keys = {name: await keyring.make(new_key(name, RNG)) for name in names}
        assert {name: await keyring.find(name) for name in names} == keys
        assert len({key.id for key in keys.values()}) == len({key.secret for key in keys.values()}) == len(names)

    async def test_an_id_of_another_key_is_refused(self, open_keyring: Open) -> None:
        keyring = await open_keyring()
        first = await keyring.make(new_key("anna", RNG))
        with pytest.raises(IdTaken):
            await keyring.make(PersonKey(id=first.id, principal="bert", secret=b"x" * 64))
        assert await keyring.find("bert") is None
        assert await keyring.find("anna") == first

    async def test_a_destroyed_key_is_gone_for_everybody_and_the_person_may_get_another(
        self, open_keyring: Open
    ) -> None:
        one, other = await open_keyring(), await open_keyring()
        first, bert = await one.make(new_key("anna", RNG)), await one.make(new_key("bert", RNG))
        await other.destroy(first.id)
        await one.destroy(first.id)
        for keyring in (one, other):
            assert await keyring.find("anna") is None
            assert await keyring.read([first.id, bert.id]) == {bert.id: bert}
        second = await one.make(new_key("anna", RNG))
        assert second.id != first.id and await other.find("anna") == second
        await one.destroy(first.id)
        assert await other.find("anna") == second, "an old key's end is not the new one's"

    async def test_making_and_destroying_at_once_leave_it_whole(self, open_keyring: Open) -> None:
        one, other = await open_keyring(), await open_keyring()
        for _ in range(10):
            key = await one.make(new_key("anna", RNG))
            made, _ = await asyncio.gather(other.make(new_key("anna", RNG)), one.destroy(key.id))
            left = await one.find("anna")
            assert left is None or left == made
            assert await one.ids() == ([left.id] if left is not None else [])
            if left is not None:
                await one.destroy(left.id)

    async def test_no_text_of_a_key_has_its_secret(self, open_keyring: Open) -> None:
        keyring = await open_keyring()
        key = await keyring.make(PersonKey(id="3f2a91c0", principal="anna", secret=b"sesame" * 11))
        for text in (repr(key), str(key), f"{key}", repr([key]), repr(await keyring.read([key.id]))):
            assert "sesame" not in text and "3f2a91c0" in text

    async def test_closed_it_refuses(self, open_keyring: Open) -> None:
        keyring = await open_keyring()
        await keyring.close()
        for call in (keyring.find("anna"), keyring.make(new_key("anna", RNG)), keyring.ids(), keyring.destroy("0")):
            with pytest.raises(Unavailable) as refusal:
                await call
            assert refusal.value.code == "keyring.closed"
