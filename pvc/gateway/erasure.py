"""People in commands: their names are sealed on the way in, and what an erasure comes to is told on the way out."""

from __future__ import annotations

from typing import Any

import msgspec

from pvc.commands.audit import ErasePerson
from pvc.commands.base import CommandSpec, quoted
from pvc.errors import NotFound
from pvc.events.record import Record
from pvc.events.sealed import beginning_of, erased_name, key_of_pseudonym, parse_sealed
from pvc.gateway.moments import INDEX_DEADLINE_S
from pvc.gateway.records import decode_record
from pvc.gateway.services import GatewayServices
from pvc.projections.state import ClusterState


async def sealed_command(
    spec: CommandSpec, services: GatewayServices, command: msgspec.Struct, *, dry_run: bool
) -> msgspec.Struct:
    """The command with the names of people in it sealed. Raises NotFound for nobody who is known, Unavailable.

    A dry run makes nobody a key: what it decides goes nowhere.
    """
    if isinstance(command, ErasePerson):
        sealed = await services.people.find(command.principal)
        if not sealed:
            raise NotFound(
                f"there is no key of a person {quoted(command.principal)}",
                code="access.person_not_found",
                hint="`pvc history all` shows who acted; root and nodes are nobody's name, and need no erasure",
                field="principal",
            )
        return msgspec.structs.replace(command, principal=sealed)
    changes: dict[str, Any] = {
        field: await name_in_log(services, name) for field in spec.known if (name := getattr(command, field))
    }
    for field in spec.personal:
        name = getattr(command, field)
        sealed = await (services.people.find(name) if dry_run else services.people.seal(name)) if name else ""
        changes[field] = sealed or name
    return msgspec.structs.replace(command, **changes) if changes else command


async def sealed_for_what_if(spec: CommandSpec, services: GatewayServices, command: msgspec.Struct) -> msgspec.Struct:
    """The command of one step of a what-if, sealed. Whom nobody knows an earlier step may add: whether one has, is
    decided where the steps are played through. Raises Unavailable."""
    if isinstance(command, ErasePerson):
        return command  # whose own dry run says what would become unreadable
    try:
        return await sealed_command(spec, services, command, dry_run=True)
    except NotFound:
        names = {field: name for field in (*spec.known, *spec.personal) if (name := getattr(command, field))}
        changes: dict[str, Any] = {field: await services.people.find(name) or name for field, name in names.items()}
        return msgspec.structs.replace(command, **changes)


async def name_in_log(services: GatewayServices, name: str, then: ClusterState | None = None) -> str:
    """How the name of a principal stands in the log, by name or pseudonym; of one that there was then, where a state of
    the past is given. Raises NotFound, Unavailable."""
    state = then or services.world.state
    if name in state.principals:
        return name  # of before names were sealed
    pseudonym = key_of_pseudonym(name)
    for known in state.principals if pseudonym else ():
        sealed = parse_sealed(known)
        if sealed is not None and sealed.key == pseudonym:
            return known
    found = await services.people.find(name)
    if found not in state.principals:
        raise NotFound(
            f"there is no principal {quoted(name)}",
            code="access.principal_not_found",
            hint="`pvc access list` shows them",
            field="principal",
        )
    return found


async def erased_before(services: GatewayServices, key: str, name: str) -> Record | None:
    """The record of an erasure that is asked for again under the same key: by now nobody can tell whose it was."""
    await services.history.reach(services.world.position, INDEX_DEADLINE_S)
    data = await services.history.find_command(key) if key else None
    record = decode_record(data) if data is not None else None
    return record if record is not None and record.command.name == name else None


async def notes_on_erasure(services: GatewayServices, given: ErasePerson, command: ErasePerson) -> list[str]:
    """What becomes unreadable, and what stays. `given` has the name, `command` its key."""
    sealed = parse_sealed(command.principal)
    assert sealed is not None, "it was sealed to be decided"
    await services.history.reach(services.world.position, INDEX_DEADLINE_S)
    pseudonym, name = erased_name(sealed.key), given.principal
    records = sum((await services.history.actors(beginning_of(sealed.key))).values())
    plain = (await services.history.actors(name)).get(name, 0)
    tokens = [token.id for token in services.world.state.tokens.values() if token.principal == command.principal]
    notes = [
        f"unreadable, for everybody and for good: the name and the addresses of {name} in {_records(records)}",
        f"stays: what was done in them, and when, by {pseudonym}; the log, its proofs and replicas verify as before",
    ]
    if plain:
        notes.append(f"stays readable: {name}, in {_records(plain)} of before names were sealed")
    if tokens:
        notes.append(f"goes on: the token {', '.join(tokens)}; who uses it will be {pseudonym}, with a new key")
    return [*notes, "to be destroyed by hand: copies of the keys in backups, and what was exported or sent with names"]


def _records(count: int) -> str:
    return f"{count} record{'' if count == 1 else 's'}"
