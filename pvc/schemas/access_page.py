"""docs/access.md: who may do what, with the table that decides it, and every endpoint and command under its action."""

from __future__ import annotations

from collections.abc import Sequence

from pvc.commands.access_table import TABLE, Action, Cell
from pvc.events.types import Role
from pvc.gateway.auth import FAILURES_ALLOWED
from pvc.gateway.console import CONSOLE_ACTION
from pvc.gateway.endpoint import Endpoint
from pvc.gateway.warden import (
    ADDRESSES_A_DAY,
    COMMANDS_A_SECOND,
    COMMANDS_AT_ONCE,
    LOGIN_EVERY_S,
    LOGINS_AT_ONCE,
    REFUSAL_EVERY_S,
    REFUSALS_AT_ONCE,
    REQUESTS_A_SECOND,
    REQUESTS_AT_ONCE,
    SECRETS_AT_ONCE,
)
from pvc.schemas.markdown import NOTICE, table

_INTRODUCTION = """\
# Access

Who may do what is part of the cluster's state, and so of the log: who was given which role, by whom and when, stands
in the history like everything else, and holds on every node from that record on.

## Principals, roles, scopes

A **principal** is a person or a service. It has one or several **grants**: a role, either on the whole cluster, or
limited to the VMs that have a tag, or a name that matches a pattern, or both. What several grants allow, adds up.

| role | may |
| --- | --- |
| `viewer` | Look at everything that is not about access. |
| `operator` | Run, move, define and change VMs as well. |
| `admin` | Everything. |
| `auditor` | Look at everything, access and logins too, but for what guests write; change nothing. |

```
$ pvc access add anna --grant operator,tag=shop --grant viewer
Person anna added: operator on VMs with tag shop; viewer
$ pvc access token create anna --lifetime 90d --description laptop
Token 3f2a91c0d4e5 made for anna, until 2027-02-19 18:10 UTC
The token, shown only this once (the log keeps but its hash):
pvc_3f2a91c0d4e5_...
$ pvc access list
NAME    KIND     MAY                          TOKENS  LAST USE
admin   person   admin                             1  2 d ago
anna    person   operator (tag shop), viewer       1  never
backup  service  viewer (name db-*)                1  11 h ago
```

`root`, who comes through the Unix socket of a node, is admin and needs no token: root can stop every VM there in any
case. So whoever loses the last admin token makes a new one there, and nobody can lock the admins out. Nodes ask each
other for parts of the log with a signature of their own ([0018](decisions/0018-peers.md)) and a certificate that is
shown in the TLS handshake ([0023](decisions/0023-login.md)), which open nothing else.

People may also log in at an OpenID Connect issuer: `pvc login` ([how](login.md)). Their groups there give the roles,
and they have no tokens but those of their logins.

## Scopes

A limited role covers a VM by the tags and the name that it has **now**. That is asked when a command comes in, and
again when it is decided, against the very state that its record continues: a VM that has lost the tag meanwhile is
safe.

- Lists show the VMs that are covered. Any other one is answered with 403 `access.out_of_scope`, whether there is such
  a VM or not.
- The history and the events show what is about VMs that are covered: all of it, also of the time before they had the
  tag. What became of VMs that are removed, and what is about nodes and the cluster, whoever is limited does not see:
  it may name any VM.
- A VM cannot be renamed out of the scope, to a name that is free or not. Of a name within it a rename tells whether it
  is taken, be it by another's VM: names are unique in the cluster. A VM's tags can be changed by whoever may configure
  it, also those that scopes go by: a protected tag is no obstacle to that. Give scopes by name where that matters.
- Defining VMs and changing their disks is for the whole cluster alone: a definition names files of the nodes, and
  with the right path one would read any VM's disk.
- A [webhook](webhooks.md) is sent what its owner may see, so a limited owner's is sent what is about VMs that are
  covered. Making and changing webhooks, and looking at them, is for the whole cluster alone.
- Nodes, and the cluster's health with its reasons, are shown to everybody. A reason may name a VM.

## The table

Each endpoint and each command names its action. For each action and role there are two words: for the role on the
whole cluster, and for the role limited to some VMs where that is another one. `self.login` needs no token at all.

| word | means |
| --- | --- |
| allow | Allowed. |
| in scope | For the VMs that the role covers. Lists leave out the others. |
| own | For oneself and one's own tokens. Lists leave out the others. |
| deny | Refused, with 403 and a record. |

"""

_AFTER = f"""\

## Tokens

A token reads `pvc_<id>_<secret>`. The secret has 256 random bits, is shown once, and only its SHA-256 is in the log.
It may do what its owner may, but no more than its own role (`--role`): a monitor gets a `viewer` token of an admin.

```
$ pvc access token rotate 3f2a91c0d4e5 --overlap 2h
Token 91b2c3d4e5f6 made for anna, until 2027-02-19 18:12 UTC
Token 3f2a91c0d4e5 is replaced by 91b2c3d4e5f6, and opens until 2026-11-21 20:12 UTC
The token, shown only this once (the log keeps but its hash):
pvc_91b2c3d4e5f6_...
$ pvc access token revoke 3f2a91c0d4e5 --yes
Token 3f2a91c0d4e5 revoked
```

- **Expiry**: a year if nothing else is said; `--lifetime 0` is for ever. The first token, of `pvc cluster init`, does
  not expire. The node's clock decides.
- **Rotating**: a new token with the role and the length of life of the old one, which opens for another day
  (`--overlap`). Everybody may rotate and revoke their own, so a service can do it by itself; a new token from nothing
  takes an admin. But a token changes none that may do more than itself (`access.token_beyond`): with a monitor's
  `viewer` token of an admin nobody becomes one, nor shuts the admin out. A token is rotated once; but where the new
  one was never used, as its reply was lost, it can be rotated again, and that one is revoked.
- **Revoking** holds on a node as soon as it has folded the record: within milliseconds. An open console or a followed
  log ends within a second.
- **Last use** is a record, `access.token_used`, at most once a day for each token, address and gateway, and for at
  most {ADDRESSES_A_DAY} addresses of a token a day. A record for each request would make every reader a writer of the
  log. Beside the log it would be lost with the node, and could be changed without a trace. Once a day is enough for
  the two questions that are asked of it: does anybody still use this, and from where has it been used.

## What is recorded

"""

_AFTER_EVENTS = f"""\
What goes over the measure is counted, and the next record says how many there were (`unrecorded`). So nobody fills
the log, neither with a token nor without, and a flood is still seen. Of a refused login the record has the network (a
/24 or /48), not the address, which may be a person's who mistyped; the node's journal has it in full.

```
$ pvc audit login
WHEN      WHO   FROM           TOKEN         AT NODE  RESULT
2 s ago   ?     192.0.2.0/24   3f2a91c0d4e5  hv1      refused: access.token_expired
11 h ago  anna  192.0.2.7      91b2c3d4e5f6  hv1      ok
```

`pvc audit who vm/web01` answers two questions: who **has touched** it (whoever has a record about it, refused tries
included, by the name in the record), and who **may touch** it now (whose grants allow anything with it, whether they
have a token or not).

## Names

Names of principals are sealed in the log like all names of people, those of services too ([erasing
people](erasure.md)). `pvc audit erase anna` makes the name unreadable; the principal, its grants and tokens go on as
`erased-82dd2014`, and are changed and removed under that name. `pvc access remove` takes away what somebody may do,
and leaves the name in the history.

## Brakes

- After {FAILURES_ALLOWED} wrong tokens from an address, it gets 429 for a while. **A right token always opens**,
  however many wrong ones came from the same address before: so the brake cannot be used to lock anybody out, and 256
  random bits are not guessed meanwhile.
- A principal may make {REQUESTS_AT_ONCE:,} requests at once and {REQUESTS_A_SECOND:g} a second from then on, at each
  gateway, over all its tokens; of those that may write, {COMMANDS_AT_ONCE} and {COMMANDS_A_SECOND:g}. More is
  answered with 429 `access.too_many_requests` and `Retry-After`. Root through the socket is not held up.
  Who has stolen a token of somebody's can use up their rate, until it is revoked: by another admin, or by root.

## ZooKeeper

Nodes do not come through a gateway to the log. What one may do there is ZooKeeper's to say, by ACLs of digest
identities: `[log] user` for every node, and `archivist_user` for coordinators alone.

| | every node | the archivist | anybody else |
| --- | --- | --- | --- |
| read records | yes | no | no |
| append a record | yes | no | no |
| change a record | no | no | no |
| delete a record that is archived | no | yes | no |
| set the head, and so stop everybody | yes | no | no |

So a node can append and never rewrite, its own records neither. Who may delete and create could forge; no identity may
do both (a coordinator, which has the two, could: its admin is root there). Without `archivist_user` every node may
delete, and the hash chain shows it. Without `user` everybody who reaches ZooKeeper may do what a node may: see that
only nodes reach it ([why](decisions/0003-commit-protocol.md), [what an attacker could still do](tamper-evidence.md)).
"""


def access_page(endpoints: Sequence[Endpoint]) -> str:
    """The whole page."""
    rows = [(f"`{action}`", *(_cell(cell) for cell in row.values())) for action, row in TABLE.items()]
    events = table(("event", "when", "at most"), _EVENTS)
    head = ("action", *Role)
    decided = table(head, rows) + _ACTIONS + _of_actions(endpoints)
    return NOTICE + _INTRODUCTION + decided + _AFTER + events + _AFTER_EVENTS


_EVENTS = (
    ("`command.rejected`", "A command was allowed, and refused by the state.", "As many as there are commands."),
    (
        "`access.refused`",
        "A principal asked for what it may not have, or too often: commands and reads alike, dry runs too.",
        f"{REFUSALS_AT_ONCE} at once, then one in {REFUSAL_EVERY_S / 60:g} minutes, of one principal at one node.",
    ),
    (
        "`access.login_refused`",
        "Somebody came with a token that opens nothing, or a login failed before it was known whose.",
        f"{LOGINS_AT_ONCE} at once, then one in {LOGIN_EVERY_S / 60:g} minutes: of all unknown tokens together, and of "
        "each known one.",
    ),
    ("`access.token_used`", "A token was used.", "Once a day, as above."),
    ("`access.logged_in`", "A person has logged in at the issuer, and was given a token.", "Each one."),
    (
        "`access.secret_read`",
        "Keys of people, stored segments, snapshots or a replica's records were given out (not to nodes).",
        f"{SECRETS_AT_ONCE} at once, then one a minute, of one reader.",
    ),
)

_ACTIONS = "What belongs to each action:\n\n"


def _cell(cell: Cell) -> str:
    whole, limited = cell
    return str(whole) if whole is limited else f"{whole}; limited: {limited}"


def _of_actions(endpoints: Sequence[Endpoint]) -> str:
    names: dict[Action, list[str]] = {action: [] for action in TABLE}
    for endpoint in endpoints:
        names[endpoint.action].append(f"`{endpoint.name}`")
    names[CONSOLE_ACTION].append("`vm.console`")
    return table(("action", "endpoints and commands"), [(f"`{one}`", ", ".join(of)) for one, of in names.items()])
