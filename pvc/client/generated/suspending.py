"""The methods of the client for asyncio, in groups. Generated: see pvc/schemas."""

from __future__ import annotations

import builtins
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from pvc.client.calls import AsyncGroup, Calls
from pvc.client.generated.models import (
    ClusterInfo,
    ConsistencyProof,
    DeliveryInfo,
    Diff,
    DiskInput,
    FaultInfo,
    Forecast,
    GrantInput,
    ImportReply,
    InclusionProof,
    KeyCopies,
    KeyList,
    LoginBegun,
    LoginInfo,
    LoginReply,
    LogStatus,
    NicInput,
    NodeInfo,
    OperationInfo,
    OperationView,
    ParkedInfo,
    PersonInfo,
    PrincipalInfo,
    PrincipalRow,
    RecordPortion,
    RecordView,
    RepairState,
    Reply,
    TestReply,
    TokenInfo,
    UndoReply,
    VerifiedPortion,
    VmInfo,
    VmRow,
    VmState,
    WebhookInfo,
    WebhookRow,
    Who,
    WhoAmI,
)
from pvc.client.operations import AsyncOperation
from pvc.client.streams import AsyncVmStreams


class AsyncAccess(AsyncGroup):
    """People, services and their tokens: who may do what."""

    async def add(
        self,
        principal: str,
        *,
        grants: Sequence[GrantInput],
        kind: Literal["person", "service"] | None = None,
        description: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Add a person or a service that may act, with its roles.

        A role is on the whole cluster, or limited to VMs with a tag, or a name that matches. What several allow, adds
        up. It can do nothing before it has a token.

        principal: Name of a person, or of a service: letters, digits and . _ @ + - (at most 63 characters).
        grants: A role, and what it is limited to.
        kind: Who it is. person where nothing is said.
        description: Free text for people.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "access.add",
            {"principal": principal, "grants": grants, "kind": kind, "description": description},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def create_token(
        self,
        principal: str,
        *,
        role: Literal["viewer", "operator", "admin", "auditor"] | None = None,
        lifetime_s: int | None = None,
        description: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Make a token for a principal.

        It is shown in the reply and never again; the log keeps its hash. It may do what its owner may, but no more than
        its own role.

        principal: Name of the principal, or the pseudonym of one who was erased.
        role: The most that it may do. admin where nothing is said.
        lifetime_s: How long it opens; 0: for ever. 31536000 where nothing is said.
        description: Free text for people.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "access.create_token",
            {"principal": principal, "role": role, "lifetime_s": lifetime_s, "description": description},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def get(self, principal: str) -> PrincipalInfo:
        """All about a principal.

        By its name, or the pseudonym of one who was erased.

        principal: The principal.
        """
        return await self._get("/access/{principal}", {"principal": principal}, PrincipalInfo)

    async def list(
        self,
        *,
        sort: Sequence[str] | None = None,
        kind: Sequence[Literal["person", "service"]] | None = None,
        limit: int | None = None,
    ) -> builtins.list[PrincipalRow]:
        """Principals, and what each may do.

        Who may not see all is shown themselves.

        sort: By these, one after the other; `-` before a name: the greatest first.
        kind: Only those of one of these kinds.
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/access",
            {"sort": sort, "kind": kind},
            PrincipalRow,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )

    async def list_tokens(
        self,
        *,
        sort: Sequence[str] | None = None,
        role: Sequence[Literal["viewer", "operator", "admin", "auditor"]] | None = None,
        expired: bool | None = None,
        limit: int | None = None,
    ) -> builtins.list[TokenInfo]:
        """Tokens, without their secrets.

        Who may not see all is shown their own. A token that was revoked is in the history alone.

        sort: By these, one after the other; `-` before a name: the greatest first.
        role: Only those limited to one of these roles.
        expired: Only those that have expired, or only the others.
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/tokens",
            {"sort": sort, "role": role, "expired": expired},
            TokenInfo,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )

    async def modify(
        self,
        principal: str,
        *,
        grants: Sequence[GrantInput] | None = None,
        kind: Literal["person", "service"] | None = None,
        description: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Change a principal's roles, or what is said of it.

        The grants that are given take the place of all that there were. They count at once, for all its tokens.

        principal: Name of the principal, or the pseudonym of one who was erased.
        grants: A role, and what it is limited to.
        kind: Who it is.
        description: Free text for people.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "access.modify",
            {"principal": principal, "grants": grants, "kind": kind, "description": description},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def remove(
        self,
        principal: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Remove a principal, with all its tokens.

        What it did stays in the history. To make the name there unreadable as well: `pvc audit erase`.

        principal: Name of the principal, or the pseudonym of one who was erased.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command("access.remove", {"principal": principal}, dry_run=dry_run, wait=wait, key=key)

    async def revoke_token(
        self,
        token: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Revoke a token: it opens nothing any more, from this record on.

        Everybody may revoke their own, with a token that may do as much.

        token: Id of the token: its middle part.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command("access.revoke_token", {"token": token}, dry_run=dry_run, wait=wait, key=key)

    async def rotate_token(
        self,
        token: str,
        *,
        overlap_s: int | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Replace a token by a new one; the old one opens a while longer, so that both can be changed over.

        The new one is shown in the reply and never again; was that lost, rotate the old one again. It has the role and
        the length of life of the old one. Everybody may rotate their own, with a token that may do as much.

        token: Id of the token: its middle part.
        overlap_s: How long the old one still opens. 86400 where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "access.rotate_token",
            {"token": token, "overlap_s": overlap_s},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def whoami(self) -> WhoAmI:
        """Who is asking."""
        return await self._get("/whoami", {}, WhoAmI)


class AsyncAudit(AsyncGroup):
    """Who did what, and what is known of people."""

    async def erase(
        self,
        principal: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Erase a person: make their name and addresses unreadable in all records, for good.

        Their key is destroyed. What was done, and when, stays in the history under a pseudonym, and the log verifies as
        before. Copies of the keys in backups have to be destroyed by hand.

        principal: The person's name, as the history shows it.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command("audit.erase", {"principal": principal}, dry_run=dry_run, wait=wait, key=key)

    async def export_keys(self) -> KeyCopies:
        """The keys of people's names, to be kept elsewhere.

        Only through the Unix socket. An erasure is complete when the last copy is destroyed.
        """
        return await self._get("/audit/keys", {}, KeyCopies)

    async def import_keys(self, *, keys: Sequence[Mapping[str, Any]]) -> ImportReply:
        """Keep keys again, after they were lost.

        Only through the Unix socket. Keys of people who are erased are not kept.
        """
        return await self._post("/audit/keys", {"keys": keys}, ImportReply)

    async def logins(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        actor: str | None = None,
        refused: bool | None = None,
        since: str | None = None,
        limit: int | None = 50,
    ) -> builtins.list[RecordView]:
        """Who has come in, and who was refused, newest first.

        The use of a token is recorded once a day for each address and gateway. Of refused tries few are recorded;
        `unrecorded` says how many more there were.

        before: A position of the log, itself not included.
        after: A position of the log, itself not included.
        actor: Only of this principal.
        refused: Only those that were refused.
        since: ISO 8601, or how long ago: 30m, 2h, 1d.
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/audit/logins",
            {"before": before, "after": after, "actor": actor, "refused": refused, "since": since},
            RecordView,
            items="records",
            cursor=("before", "next_before"),
            limit=limit,
        )

    async def people(
        self,
        *,
        sort: Sequence[str] | None = None,
        state: Sequence[Literal["erased", "erasing", "readable"]] | None = None,
        limit: int | None = None,
    ) -> builtins.list[PersonInfo]:
        """The people whom the log knows by name, and those who are erased.

        Who acted only before names were sealed is not among them.

        sort: By these, one after the other; `-` before a name: the greatest first.
        state: Only those in one of these states.
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/audit/people",
            {"sort": sort, "state": state},
            PersonInfo,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )

    async def who(
        self,
        *,
        subject: str,
        limit: int | None = None,
        after: str | None = None,
        sort: Sequence[str] | None = None,
        since: str | None = None,
    ) -> Who:
        """Who has touched a thing, and who may now.

        Touched: whoever has a record about it, refused tries too. May: principals whose grants allow something with it
        at this position, whether they have a token or not; root on a node always may, and is not listed. `subject` may
        also be `access/<name of a principal>`, with its tokens.

        limit: Items at most, 1,000 if not given. 10000 where nothing is said.
        after: Begin after this: `next` of the page before, with the same `sort`.
        sort: By these, one after the other; `-` before a name: the greatest first.
        subject: `vm/<name or id>`, `node/<name>`, `access/<id or name>`, `webhook/<id>` or `cluster`.
        since: ISO 8601, or how long ago: 30m, 2h, 1d.
        """
        return await self._get(
            "/audit/who",
            {"limit": limit, "after": after, "sort": sort, "subject": subject, "since": since},
            Who,
        )


class AsyncCluster(AsyncGroup):
    """The cluster as a whole."""

    async def get(self, *, at: str | None = None) -> ClusterInfo:
        """The cluster at one look, with its health.

        `reasons` says why the health is not `ok`. A fault that was acknowledged no longer counts. Of the past the
        health is what the log alone tells.

        at: The moment to look at, instead of now: a position of the log, a time in ISO 8601, or how long ago (30m, 2h,
            1d).
        """
        return await self._get("/cluster", {"at": at}, ClusterInfo)

    async def init(
        self,
        name: str,
        *,
        coordinators: Sequence[str] | None = None,
        admin: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Initialise the cluster and make the first admin token.

        Done once, as root on the first node. The token is shown in the reply and never again; the log keeps its hash.

        name: Name of the cluster: a DNS label.
        coordinators: The coordinators: 1, 3 or 5 nodes; if none are given, the first node to join is the one.
        admin: Whose the first admin token is. admin where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "cluster.init",
            {"name": name, "coordinators": coordinators, "admin": admin},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def rebalance(
        self,
        *,
        moves: int | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Migrate VMs from the fullest nodes to the emptiest, until that gains nothing more.

        Full means memory held by running VMs. Only VMs that can migrate live are moved; node limits are kept, and no VM
        gets closer to those that it is to keep away from. With `--dry-run` it shows what it would do.

        moves: Migrations at most. 10 where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command("cluster.rebalance", {"moves": moves}, dry_run=dry_run, wait=wait, key=key)

    async def set_maintenance(
        self,
        maintenance: bool,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Set whether the cluster is in maintenance: then no node is declared lost, fenced or recovered from.

        For work on the network or on ZooKeeper that would look like the loss of nodes.

        maintenance: Whether the cluster is in maintenance.
        reason: Free text for people.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "cluster.set_maintenance",
            {"maintenance": maintenance, "reason": reason},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def what_if(self, *, steps: Sequence[Mapping[str, Any]]) -> Forecast:
        """What would come of commands, or of the loss of a node.

        Played through to its end on a fork of the present state, with the decisions that the real thing would take;
        nothing is written. All that has effects outside is taken to succeed: guests start and power off, migrations
        arrive, fence agents cut the power. A command that would be refused has its error in `refusal`.
        """
        return await self._post("/whatif", {"steps": steps}, Forecast)


class AsyncFaults(AsyncGroup):
    """What is wrong."""

    async def acknowledge(
        self,
        fault: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Note that a fault has been seen; it stays in the list until its cause is gone.

        fault: Id of the fault.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command("fault.acknowledge", {"fault": fault}, dry_run=dry_run, wait=wait, key=key)

    async def list(
        self,
        *,
        sort: Sequence[str] | None = None,
        code: str | None = None,
        subject: str | None = None,
        acknowledged: bool | None = None,
        at: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[FaultInfo]:
        """What is wrong with the cluster, the newest first.

        A fault is there until its cause is gone, whether somebody has taken notice of it or not.

        sort: By these, one after the other; `-` before a name: the greatest first.
        code: Only those with this code.
        subject: Only those about this.
        acknowledged: Only those that somebody has taken notice of, or only the others.
        at: The moment to look at, instead of now: a position of the log, a time in ISO 8601, or how long ago (30m, 2h,
            1d).
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/faults",
            {"sort": sort, "code": code, "subject": subject, "acknowledged": acknowledged, "at": at},
            FaultInfo,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )


class AsyncLog(AsyncGroup):
    """The log: what happened, proofs of it, and its care."""

    async def consistency(self, *, old: int, new: int | None = None) -> ConsistencyProof:
        """The proof that an older checkpoint is of the beginning of the same log.

        old: So many records, from the first on.
        new: 0: the newest checkpoint. 0 where nothing is said.
        """
        return await self._get("/log/consistency", {"old": old, "new": new}, ConsistencyProof)

    async def diff(
        self,
        *,
        old: str,
        limit: int | None = None,
        after: str | None = None,
        sort: Sequence[str] | None = None,
        new: str | None = None,
        subject: str | None = None,
    ) -> Diff:
        """What changed between two moments, and who did it.

        Empty exactly where the two state hashes are equal. Faults are told by what they are about.

        limit: Objects at most. 200 where nothing is said.
        after: Begin after this: `next` of the page before, with the same `sort`.
        sort: By these, one after the other; `-` before a name: the greatest first.
        old: A moment: a position of the log, a time in ISO 8601, how long ago (30m, 2h, 1d), or `now`.
        new: A moment: a position of the log, a time in ISO 8601, how long ago (30m, 2h, 1d), or `now`. now where
            nothing is said.
        subject: `vm/<name or id>`, `node/<name>`, `access/<id of a token or principal>`, `webhook/<id>` or `cluster`. A
            VM's name covers every VM that ever had it.
        """
        return await self._get(
            "/diff",
            {"limit": limit, "after": after, "sort": sort, "old": old, "new": new, "subject": subject},
            Diff,
        )

    async def history(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        subject: str | None = None,
        actor: str | None = None,
        tag: str | None = None,
        type: Sequence[str] | None = None,
        since: str | None = None,
        until: str | None = None,
        correlation: str | None = None,
        at: str | None = None,
        limit: int | None = 50,
    ) -> builtins.list[RecordView]:
        """Who did what, newest first.

        Also the refused commands. A VM's history stays when the VM is renamed or removed. With `at` it ends there.

        before: A position of the log, itself not included.
        after: A position of the log, itself not included.
        subject: `vm/<name or id>`, `node/<name>`, `access/<id of a token or principal>`, `webhook/<id>` or `cluster`. A
            VM's name covers every VM that ever had it.
        actor: The principal: a name, or the pseudonym of who is erased.
        tag: Only what is about VMs that had this tag when it happened.
        type: Event types, `vm.*` for all that begin with `vm.`.
        since: ISO 8601, or how long ago: 30m, 2h, 1d.
        until: ISO 8601, or how long ago: 30m, 2h, 1d.
        correlation: Id of any record of a chain of causes: the whole chain.
        at: The moment to look at, instead of now: a position of the log, a time in ISO 8601, or how long ago (30m, 2h,
            1d).
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/history",
            {
                "before": before,
                "after": after,
                "subject": subject,
                "actor": actor,
                "tag": tag,
                "type": type,
                "since": since,
                "until": until,
                "correlation": correlation,
                "at": at,
            },
            RecordView,
            items="records",
            cursor=("before", "next_before"),
            limit=limit,
        )

    async def keys(
        self,
        *,
        limit: int | None = None,
        after: str | None = None,
        sort: Sequence[str] | None = None,
        retired: bool | None = None,
    ) -> KeyList:
        """The keys that vouch for the log, and the newest checkpoint.

        Keep the keys outside of the cluster: a verification is worth as much as the way its keys came.

        limit: Items at most, 1,000 if not given. 10000 where nothing is said.
        after: Begin after this: `next` of the page before, with the same `sort`.
        sort: By these, one after the other; `-` before a name: the greatest first.
        retired: Only those that are retired, or only the others.
        """
        return await self._get("/log/keys", {"limit": limit, "after": after, "sort": sort, "retired": retired}, KeyList)

    async def prove(self, *, position: int, size: int | None = None) -> InclusionProof:
        """The proof that a record is in the log which a checkpoint vouches for.

        It can be verified anywhere, with the public key alone.

        position: A position of the log.
        size: Of the checkpoint; 0: the newest one that has the record. 0 where nothing is said.
        """
        return await self._get("/log/proof", {"position": position, "size": size}, InclusionProof)

    async def records(self, *, first: int | None = None, limit: int | None = None) -> RecordPortion:
        """Records of the log as they are stored.

        From this node's replica. The chain and the tree are over exactly these bytes.

        first: A position of the log. 1 where nothing is said.
        limit: Records at most. 4096 where nothing is said.
        """
        return await self._get("/log/records", {"first": first, "limit": limit}, RecordPortion)

    async def repair(
        self,
        *,
        keep: Literal["replica", "log"] | None = None,
        take_over: bool | None = None,
        force: bool | None = None,
    ) -> RepairState:
        """Restore the log from this node's replica

        Begins it; GET says how it goes on.

        keep: Which is to stand where log and replica contradict each other.
        take_over: Go on although another repair holds the log.
        force: Although another node has more records than this one.
        """
        return await self._post("/log/repair", {"keep": keep, "take_over": take_over, "force": force}, RepairState)

    async def rotate_key(
        self,
        node: str | None = None,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Have a coordinator sign the log's checkpoints with a new key.

        The node makes the key and announces it; the old one is retired in the same record. Checkpoints that the old one
        signed before stay valid; what it signs from there on does not count.

        node: The coordinator; all of them if none is named.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command("log.rotate_key", {"node": node}, dry_run=dry_run, wait=wait, key=key)

    async def status(self) -> LogStatus:
        """Where the log is

        Its segments in ZooKeeper, its archives, and how far each node has it.
        """
        return await self._get("/log/status", {}, LogStatus)

    async def survey(self) -> RepairState:
        """Compare the log with this node's replica

        Changes nothing. While a repair is going on it says how far it is.
        """
        return await self._get("/log/repair", {}, RepairState)

    async def undo(self, position: int, *, dry_run: bool = False, key: str = "") -> UndoReply:
        """Undo what a command did, by the command that takes it back.

        `name` and `fields` in the reply say which command that is; `dry_run=true` shows it first. Refused where there
        is none (`undo.no_inverse`), where the record is a fact (`undo.is_fact`), and where what it did was changed
        again since (`undo.changed_since`). It needs the role of the command. What follows from it names the undone
        record as its cause.

        position: The position.
        dry_run: Only say what would happen.
        key: The idempotency key; one is made where none is given.
        """
        return await self._post("/undo/{position}", {"position": position}, UndoReply, dry_run=dry_run, key=key)

    async def verify(self, *, first: int | None = None, log: bool | None = None) -> VerifiedPortion:
        """Verify a portion of this node's copy of the log.

        Every record is hashed anew: against the chain, the stored tree, the checkpoints and the log's own bytes. Ask on
        with `first` one past `last` until `last` is before `first`.

        first: Begin here, or up to 255 records before it: where a subtree begins. 1 where nothing is said.
        log: Compare with the log's own bytes too, not this node's copy alone.
        """
        return await self._get("/log/verify", {"first": first, "log": log}, VerifiedPortion)


class AsyncLogin(AsyncGroup):
    """Logging people in at an issuer, for programs that do so themselves."""

    async def finish(self, *, login: str, code: str | None = None, replaces: str | None = None) -> LoginReply:
        """Finish a login: a token for a code.

        code: What the browser has brought; none with `device`.
        replaces: Id of a token of yours that is to end with this.
        """
        return await self._post("/login/finish", {"login": login, "code": code, "replaces": replaces}, LoginReply)

    async def get(self) -> LoginInfo:
        """How one logs in to this cluster."""
        return await self._get("/login", {}, LoginInfo)

    async def renew(self, *, refresh: str, replaces: str | None = None) -> LoginReply:
        """Another token, without a browser.

        Groups are read anew, and so are roles. The issuer may have ended it.

        replaces: Id of a token of yours that is to end with this.
        """
        return await self._post("/login/renew", {"refresh": refresh, "replaces": replaces}, LoginReply)

    async def start(
        self,
        *,
        flow: Literal["browser", "device"] | None = None,
        redirect: str | None = None,
    ) -> LoginBegun:
        """Begin to log in at the issuer.

        The browser comes back to `redirect` with `code` and `state`. Finish at the same gateway.

        flow: `device`: by another machine with a browser. browser where nothing is said.
        redirect: Where the browser brings the code to: http://127.0.0.1:PORT/PATH, of one's own machine.
        """
        return await self._post("/login/start", {"flow": flow, "redirect": redirect}, LoginBegun)


class AsyncNodes(AsyncGroup):
    """The hypervisors."""

    async def add(
        self,
        node: str,
        *,
        coordinator: bool | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Make a node a member of the cluster, so that its daemon may join.

        node: Name of a node: its short host name, a DNS label.
        coordinator: It runs a ZooKeeper server and a gateway, and may act for the cluster as its primary.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "node.add",
            {"node": node, "coordinator": coordinator},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def confirm_fenced(
        self,
        node: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Declare that nothing runs on a lost node that could not be fenced; its VMs are then started elsewhere.

        Only after its power has been cut by hand: a VM that still runs there would run twice and destroy its data.

        node: Name of the node.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "node.confirm_fenced",
            {"node": node},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def flush(
        self,
        node: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Move all running VMs off a node, and let it take no more, so that it can be serviced.

        node: Name of the node.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command("node.flush", {"node": node}, dry_run=dry_run, wait=wait, key=key, if_match=if_match)

    async def get(self, node: str, *, at: str | None = None) -> NodeInfo:
        """All about a node.

        node: The node.
        at: The moment to look at, instead of now: a position of the log, a time in ISO 8601, or how long ago (30m, 2h,
            1d).
        """
        return await self._get("/nodes/{node}", {"node": node, "at": at}, NodeInfo)

    async def list(
        self,
        *,
        sort: Sequence[str] | None = None,
        name: str | None = None,
        state: Sequence[Literal["joining", "ready", "lost", "fenced"]] | None = None,
        flush: Sequence[Literal["none", "flushing", "flushed", "returning"]] | None = None,
        at: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[NodeInfo]:
        """Nodes by name.

        With what was measured on each within the last seconds; null where it was not heard of, and in the past.

        sort: By these, one after the other; `-` before a name: the greatest first.
        name: Names that match, with `*`, `?` and `[...]`.
        state: Only nodes in one of these states.
        flush: Only nodes with one of these.
        at: The moment to look at, instead of now: a position of the log, a time in ISO 8601, or how long ago (30m, 2h,
            1d).
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/nodes",
            {"sort": sort, "name": name, "state": state, "flush": flush, "at": at},
            NodeInfo,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )

    async def ready(
        self,
        node: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Let a flushed node take VMs again, and bring those home that were flushed or recovered from it.

        node: Name of the node.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command("node.ready", {"node": node}, dry_run=dry_run, wait=wait, key=key, if_match=if_match)

    async def remove(
        self,
        node: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Make a node no member any more; no VM may belong to it.

        node: Name of the node.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "node.remove",
            {"node": node},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_fence(
        self,
        node: str,
        *,
        agent: str | None = None,
        option: Sequence[str] | None = None,
        password_file: str | None = None,
        timeout_s: int | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set how a node's power is cut when it is lost; without an agent, it is not.

        The agent is one of Debian's fence-agents. Its password stands in a file on every coordinator, never in the log.

        node: Name of the node.
        agent: Fence agent.
        option: Options of the agent as NAME=VALUE, such as ip=10.0.1.2; no secrets.
        password_file: File with the password, on every coordinator.
        timeout_s: How long fencing may take, in seconds. 60 where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "node.set_fence",
            {"node": node, "agent": agent, "option": option, "password_file": password_file, "timeout_s": timeout_s},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )


class AsyncOperations(AsyncGroup):
    """What is under way."""

    async def cancel(self, operation: str, *, dry_run: bool = False, key: str = "") -> Reply:
        """Cancel an operation.

        By the command that takes back what can be taken back: a migration that has not left yet is given up, a flush is
        ended and its VMs come home. It needs the role of that command. The rest is refused
        (`operation.not_cancellable`), and so is what is over (`operation.ended`). The reply is that of the command; the
        operation is `cancelled` once that has come about.

        operation: The operation.
        dry_run: Only say what would happen.
        key: The idempotency key; one is made where none is given.
        """
        return await self._post(
            "/operations/{operation}/cancel",
            {"operation": operation},
            Reply,
            dry_run=dry_run,
            key=key,
        )

    async def get(self, operation: str, *, wait: int | None = None, seen: int | None = None) -> OperationInfo:
        """All about an operation; waits for its end where asked to.

        With `wait=30` the answer comes when it is over, or after 30 s as it stands then. To follow its progress give
        `position` of the answer before as `seen`, too.

        operation: The operation.
        wait: Seconds to wait for its end, or with `seen` for a change. 0 where nothing is said.
        seen: Do not wait for the end, but for a change after this `position`.
        """
        return await self._get(
            "/operations/{operation}",
            {"operation": operation, "wait": wait, "seen": seen},
            OperationInfo,
        )

    async def list(
        self,
        *,
        sort: Sequence[str] | None = None,
        state: Sequence[Literal["pending", "running", "succeeded", "failed", "cancelled"]] | None = None,
        command: Sequence[str] | None = None,
        subject: str | None = None,
        actor: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[OperationView]:
        """What commands have begun and what came of it, the newest first.

        Every command that takes time begins an operation; its reply says which. All of them are here, as far back as
        the log goes. A long list comes in pages: give `next` as `after`.

        sort: By these, one after the other; `-` before a name: the greatest first.
        state: Only those in one of these states.
        command: Names of commands, `vm.*` for all that begin with `vm.`.
        subject: `vm/<name or id>`, `node/<name>`, `access/<id of a token or principal>`, `webhook/<id>` or `cluster`. A
            VM's name covers every VM that ever had it.
        actor: The principal: a name, or the pseudonym of who is erased.
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/operations",
            {"sort": sort, "state": state, "command": command, "subject": subject, "actor": actor},
            OperationView,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )


class AsyncVms(AsyncVmStreams):
    """The VMs."""

    async def add_tag(
        self,
        vm: str,
        tag: str,
        *,
        protected: bool | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Put a tag on a VM; a protected tag cannot be removed unless its protection is lifted first.

        vm: Name or id of the VM.
        tag: A tag: letters, digits and . _ : - (at most 63 characters, starting with a letter or digit).
        protected: Guard the tag against removal.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.add_tag",
            {"vm": vm, "tag": tag, "protected": protected},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def cancel_migration(
        self,
        vm: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Give up a migration that is under way; the VM runs on where it was. It may be too late for that.

        vm: Name or id of the VM.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.cancel_migration",
            {"vm": vm},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def define(
        self,
        name: str | None = None,
        *,
        memory_mib: int | None = None,
        vcpus: int | None = None,
        disks: Sequence[DiskInput] | None = None,
        nics: Sequence[NicInput] | None = None,
        kernel: str | None = None,
        initrd: str | None = None,
        cmdline: str | None = None,
        xml: str | None = None,
        node: str | None = None,
        description: str | None = None,
        selector: Literal["mem", "memprov", "vcpus", "vms", "load", "none"] | None = None,
        node_limits: Sequence[str] | None = None,
        migration_method: Literal["live", "shutdown", "none"] | None = None,
        autostart: bool | None = None,
        on_poweroff: Literal["stop", "restart"] | None = None,
        on_crash: Literal["stop", "restart"] | None = None,
        tags: Sequence[str] | None = None,
        max_downtime_ms: int | None = None,
        priority: int | None = None,
        affinity: Sequence[str] | None = None,
        anti_affinity: Sequence[str] | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Define a new VM, from options or from a libvirt domain XML.

        It does not run until it is started. With `xml`, its memory, vCPUs and name count unless they are given here
        too; devices then come from the XML alone.

        name: Name of a VM: a DNS label (a-z, 0-9 and inner hyphens, at most 63 characters).
        memory_mib: Memory in MiB.
        vcpus: Number of virtual CPUs.
        disks: Disks, in order.
        nics: Network interfaces, in order.
        kernel: Boot this kernel file directly instead of from a disk.
        initrd: Initial RAM disk file, with `kernel`.
        cmdline: Kernel command line, with `kernel`.
        xml: A libvirt domain XML to take the definition from.
        node: The node to run on; chosen by free memory if not given.
        description: Free text for people.
        selector: What to look for in a target node. mem where nothing is said.
        node_limits: Nodes the VM may run on; none means all.
        migration_method: How the VM is moved. live where nothing is said.
        autostart: Start the VM when its node has booted.
        on_poweroff: What follows when the guest powers itself off. stop where nothing is said.
        on_crash: What follows when the guest crashes or is killed. restart where nothing is said.
        tags: Tags to begin with.
        max_downtime_ms: How long the guest may stand still at the end of a live migration, in ms. 300 where nothing is
            said.
        priority: The highest is recovered first when its node is lost. 50 where nothing is said.
        affinity: Rather be on a node with VMs of these tags.
        anti_affinity: Rather not be on a node with VMs of these tags.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "vm.define",
            {
                "name": name,
                "memory_mib": memory_mib,
                "vcpus": vcpus,
                "disks": disks,
                "nics": nics,
                "kernel": kernel,
                "initrd": initrd,
                "cmdline": cmdline,
                "xml": xml,
                "node": node,
                "description": description,
                "selector": selector,
                "node_limits": node_limits,
                "migration_method": migration_method,
                "autostart": autostart,
                "on_poweroff": on_poweroff,
                "on_crash": on_crash,
                "tags": tags,
                "max_downtime_ms": max_downtime_ms,
                "priority": priority,
                "affinity": affinity,
                "anti_affinity": anti_affinity,
            },
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def disable(
        self,
        vm: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Forbid a VM to be started, by anyone or anything, until it is enabled again.

        vm: Name or id of the VM.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command("vm.disable", {"vm": vm}, dry_run=dry_run, wait=wait, key=key, if_match=if_match)

    async def enable(
        self,
        vm: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Allow a disabled VM to be started again.

        vm: Name or id of the VM.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command("vm.enable", {"vm": vm}, dry_run=dry_run, wait=wait, key=key, if_match=if_match)

    async def get(self, vm: str, *, at: str | None = None) -> VmInfo:
        """All about a VM.

        `position` in the reply is that of the last record that touched the VM. `usage` and the progress of a migration
        were measured within the last seconds; of the past there are none.

        vm: The vm.
        at: The moment to look at, instead of now: a position of the log, a time in ISO 8601, or how long ago (30m, 2h,
            1d).
        """
        return await self._get("/vms/{vm}", {"vm": vm, "at": at}, VmInfo)

    async def list(
        self,
        *,
        sort: Sequence[str] | None = None,
        state: Sequence[VmState] | None = None,
        tag: str | None = None,
        node: str | None = None,
        name: str | None = None,
        at: str | None = None,
        limit: int | None = None,
    ) -> builtins.list[VmRow]:
        """VMs by name.

        Those that match everything given. A long list comes in pages: give `next` as `after`.

        sort: By these, one after the other; `-` before a name: the greatest first.
        state: Only VMs in one of these states.
        tag: Only VMs with this tag.
        node: Only VMs on this node.
        name: Names that match, with `*`, `?` and `[...]`.
        at: The moment to look at, instead of now: a position of the log, a time in ISO 8601, or how long ago (30m, 2h,
            1d).
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/vms",
            {"sort": sort, "state": state, "tag": tag, "node": node, "name": name, "at": at},
            VmRow,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )

    async def migrate(
        self,
        vm: str,
        node: str | None = None,
        *,
        force_live: bool | None = None,
        max_downtime_ms: int | None = None,
        timeout_s: int | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Bring a VM to another node for a time, until it is brought back home.

        A running VM moves live; where that is not possible it is shut down and started there. A VM at rest just belongs
        to the other node.

        vm: Name or id of the VM.
        node: The node to go to; chosen by the VM's selector if not given.
        force_live: Only live, whatever that costs the guest: it is slowed down until it can be moved.
        max_downtime_ms: How long the guest may stand still at the end of a live migration, in ms.
        timeout_s: If it has to be shut down: so many seconds, then it is forced off. 90 where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.migrate",
            {
                "vm": vm,
                "node": node,
                "force_live": force_live,
                "max_downtime_ms": max_downtime_ms,
                "timeout_s": timeout_s,
            },
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def modify(
        self,
        vm: str,
        *,
        memory_mib: int | None = None,
        vcpus: int | None = None,
        disks: Sequence[DiskInput] | None = None,
        nics: Sequence[NicInput] | None = None,
        kernel: str | None = None,
        initrd: str | None = None,
        cmdline: str | None = None,
        xml: str | None = None,
        description: str | None = None,
        on_poweroff: Literal["stop", "restart"] | None = None,
        on_crash: Literal["stop", "restart"] | None = None,
        restart: bool | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Change a VM's definition; what is not given stays.

        Memory, vCPUs and devices of a running VM change at its next start; `restart` does that at once.

        vm: Name or id of the VM.
        memory_mib: Memory in MiB.
        vcpus: Number of virtual CPUs.
        disks: Disks, in order.
        nics: Network interfaces, in order.
        kernel: Boot this kernel file directly instead of from a disk.
        initrd: Initial RAM disk file, with `kernel`.
        cmdline: Kernel command line, with `kernel`.
        xml: A libvirt domain XML to take the definition from.
        description: Free text for people.
        on_poweroff: What follows when the guest powers itself off.
        on_crash: What follows when the guest crashes or is killed.
        restart: Restart the VM if it runs, so that the change takes effect.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.modify",
            {
                "vm": vm,
                "memory_mib": memory_mib,
                "vcpus": vcpus,
                "disks": disks,
                "nics": nics,
                "kernel": kernel,
                "initrd": initrd,
                "cmdline": cmdline,
                "xml": xml,
                "description": description,
                "on_poweroff": on_poweroff,
                "on_crash": on_crash,
                "restart": restart,
            },
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def move(
        self,
        vm: str,
        node: str | None = None,
        *,
        force_live: bool | None = None,
        max_downtime_ms: int | None = None,
        timeout_s: int | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Bring a VM to another node for good: that becomes its home.

        A running VM moves live; where that is not possible it is shut down and started there.

        vm: Name or id of the VM.
        node: The node to go to; chosen by the VM's selector if not given.
        force_live: Only live, whatever that costs the guest: it is slowed down until it can be moved.
        max_downtime_ms: How long the guest may stand still at the end of a live migration, in ms.
        timeout_s: If it has to be shut down: so many seconds, then it is forced off. 90 where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.move",
            {
                "vm": vm,
                "node": node,
                "force_live": force_live,
                "max_downtime_ms": max_downtime_ms,
                "timeout_s": timeout_s,
            },
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def remove(
        self,
        vm: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Remove the definition of a VM that does not run.

        Its disks' files are not touched, and its history stays readable.

        vm: Name or id of the VM.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command("vm.remove", {"vm": vm}, dry_run=dry_run, wait=wait, key=key, if_match=if_match)

    async def remove_tag(
        self,
        vm: str,
        tag: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Take a tag off a VM.

        vm: Name or id of the VM.
        tag: A tag: letters, digits and . _ : - (at most 63 characters, starting with a letter or digit).
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.remove_tag",
            {"vm": vm, "tag": tag},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def rename(
        self,
        vm: str,
        name: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Give a VM that does not run another name; its id and its history stay.

        vm: Name or id of the VM.
        name: The new name.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.rename",
            {"vm": vm, "name": name},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def reset(
        self,
        vm: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Press a VM's reset button: the guest boots again at once, unasked; its definition stays as it was started.

        vm: Name or id of the VM.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command("vm.reset", {"vm": vm}, dry_run=dry_run, wait=wait, key=key, if_match=if_match)

    async def restart(
        self,
        vm: str,
        *,
        timeout_s: int | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Shut a VM down and start it again; changes to its definition take effect.

        A guest that has not powered off when the time is over is forced off.

        vm: Name or id of the VM.
        timeout_s: Time-out in seconds. 90 where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.restart",
            {"vm": vm, "timeout_s": timeout_s},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_affinity(
        self,
        vm: str,
        affinity: Sequence[str] | None = None,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set the tags of VMs that a VM would rather be together with; none clears them.

        It is a preference: where only one node has room, the VM goes there.

        vm: Name or id of the VM.
        affinity: Rather be on a node with VMs of these tags.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.set_affinity",
            {"vm": vm, "affinity": affinity},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_anti_affinity(
        self,
        vm: str,
        anti_affinity: Sequence[str] | None = None,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set the tags of VMs that a VM would rather be apart from; none clears them.

        It is a preference: where only one node has room, the VM goes there.

        vm: Name or id of the VM.
        anti_affinity: Rather not be on a node with VMs of these tags.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.set_anti_affinity",
            {"vm": vm, "anti_affinity": anti_affinity},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_autostart(
        self,
        vm: str,
        autostart: bool,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set whether a VM is started when its node has booted.

        vm: Name or id of the VM.
        autostart: Start the VM when its node has booted.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.set_autostart",
            {"vm": vm, "autostart": autostart},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_max_downtime(
        self,
        vm: str,
        max_downtime_ms: int,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set how long a VM's guest may stand still at the end of a live migration.

        vm: Name or id of the VM.
        max_downtime_ms: How long the guest may stand still at the end of a live migration, in ms.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.set_max_downtime",
            {"vm": vm, "max_downtime_ms": max_downtime_ms},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_migration_method(
        self,
        vm: str,
        migration_method: Literal["live", "shutdown", "none"],
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set how a VM is moved to another node.

        vm: Name or id of the VM.
        migration_method: How the VM is moved.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.set_migration_method",
            {"vm": vm, "migration_method": migration_method},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_node_limits(
        self,
        vm: str,
        node_limits: Sequence[str] | None = None,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set the nodes a VM may run on; none means all.

        vm: Name or id of the VM.
        node_limits: Nodes the VM may run on.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.set_node_limits",
            {"vm": vm, "node_limits": node_limits},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_priority(
        self,
        vm: str,
        priority: int,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set how early a VM is recovered when its node is lost.

        vm: Name or id of the VM.
        priority: The highest is recovered first when its node is lost.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.set_priority",
            {"vm": vm, "priority": priority},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def set_selector(
        self,
        vm: str,
        selector: Literal["mem", "memprov", "vcpus", "vms", "load", "none"],
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Set how a target node is chosen for a VM.

        vm: Name or id of the VM.
        selector: What to look for in a target node.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.set_selector",
            {"vm": vm, "selector": selector},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def shutdown(
        self,
        vm: str,
        *,
        timeout_s: int | None = None,
        on_timeout: Literal["force", "leave"] | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Ask the guest to shut itself down (ACPI power button).

        If it has not powered off when the time is over, it is forced off, or with `on_timeout: leave` left running.

        vm: Name or id of the VM.
        timeout_s: Time-out in seconds. 90 where nothing is said.
        on_timeout: What happens when the guest does not power off in time. force where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.shutdown",
            {"vm": vm, "timeout_s": timeout_s, "on_timeout": on_timeout},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )

    async def start(
        self,
        vm: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Start a VM.

        vm: Name or id of the VM.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command("vm.start", {"vm": vm}, dry_run=dry_run, wait=wait, key=key, if_match=if_match)

    async def stop(
        self,
        vm: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Force a VM off at once, as if its power cord were pulled.

        vm: Name or id of the VM.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command("vm.stop", {"vm": vm}, dry_run=dry_run, wait=wait, key=key, if_match=if_match)

    async def unmigrate(
        self,
        vm: str,
        *,
        force_live: bool | None = None,
        max_downtime_ms: int | None = None,
        timeout_s: int | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
        if_match: int | None = None,
    ) -> AsyncOperation:
        """Bring a VM back to its home node.

        vm: Name or id of the VM.
        force_live: Only live, whatever that costs the guest: it is slowed down until it can be moved.
        max_downtime_ms: How long the guest may stand still at the end of a live migration, in ms.
        timeout_s: If it has to be shut down: so many seconds, then it is forced off. 90 where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        if_match: Raise PreconditionFailed unless its `position` is still this one, that of what you have read.
        """
        return await self._command(
            "vm.unmigrate",
            {"vm": vm, "force_live": force_live, "max_downtime_ms": max_downtime_ms, "timeout_s": timeout_s},
            dry_run=dry_run,
            wait=wait,
            key=key,
            if_match=if_match,
        )


class AsyncWebhooks(AsyncGroup):
    """Who is told of events, and what became of it."""

    async def add(
        self,
        name: str,
        url: str,
        *,
        types: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        since: str | None = None,
        batch: int | None = None,
        rate: int | None = None,
        tries: int | None = None,
        signature: Literal["hmac", "ed25519"] | None = None,
        ownership: Literal["challenge", "any-2xx"] | None = None,
        allow_private: Sequence[str] | None = None,
        reveal_names: bool | None = None,
        owner: str | None = None,
        description: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Add a webhook: an address that the cluster's events are posted to.

        In order, each at least once. It is sent a ping first, and nothing else before it has proved that it wants
        events. The secret, or the public key, that it verifies the signatures with is shown once.

        name: Name of a webhook: a DNS label.
        url: Where events are posted to. It stands in the log, so keep secrets out of it.
        types: Send only events of this type, or of this kind with `vm.*`.
        subjects: Send only events about this: vm/NAME, node/NAME, or vm, node, cluster alone.
        tags: Send only events about VMs that had this tag then.
        since: Where to begin: now, a position, a time in ISO 8601, or how long ago (30m, 2h, 1d). now where nothing is
            said.
        batch: Events of one request at most; 1 sends each by itself. 1 where nothing is said.
        rate: Requests of one second at most. 20 where nothing is said.
        tries: Tries of one event before it is parked; ten take 75 hours. 10 where nothing is said.
        signature: hmac: a shared secret. ed25519: the receiver has a public key. hmac where nothing is said.
        ownership: What proves that the receiver wants events: challenge: it repeats the ping's challenge. challenge
            where nothing is said.
        allow_private: A private network, CIDR or CIDR:PORT, in which the receiver may be.
        reveal_names: Send the names of people opened, rather than sealed as in the log.
        owner: Whose it is: it is sent what this principal may see. If nothing else is said, who adds it.
        description: Free text for people.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "webhook.add",
            {
                "name": name,
                "url": url,
                "types": types,
                "subjects": subjects,
                "tags": tags,
                "since": since,
                "batch": batch,
                "rate": rate,
                "tries": tries,
                "signature": signature,
                "ownership": ownership,
                "allow_private": allow_private,
                "reveal_names": reveal_names,
                "owner": owner,
                "description": description,
            },
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def deliveries(
        self,
        hook: str,
        *,
        sort: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> builtins.list[DeliveryInfo]:
        """The last requests to a webhook, and what was answered.

        hook: The hook.
        sort: By these, one after the other; `-` before a name: the greatest first.
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/webhooks/{hook}/deliveries",
            {"hook": hook, "sort": sort},
            DeliveryInfo,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )

    async def get(self, hook: str) -> WebhookInfo:
        """All about a webhook.

        hook: The hook.
        """
        return await self._get("/webhooks/{hook}", {"hook": hook}, WebhookInfo)

    async def list(
        self,
        *,
        sort: Sequence[str] | None = None,
        state: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> builtins.list[WebhookRow]:
        """Webhooks by name, and how far each is.

        sort: By these, one after the other; `-` before a name: the greatest first.
        state: Only those in one of these.
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/webhooks",
            {"sort": sort, "state": state},
            WebhookRow,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )

    async def modify(
        self,
        hook: str,
        *,
        url: str | None = None,
        types: Sequence[str] | None = None,
        subjects: Sequence[str] | None = None,
        tags: Sequence[str] | None = None,
        batch: int | None = None,
        rate: int | None = None,
        tries: int | None = None,
        ownership: Literal["challenge", "any-2xx"] | None = None,
        allow_private: Sequence[str] | None = None,
        reveal_names: bool | None = None,
        owner: str | None = None,
        description: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Change a webhook's settings; what is not given stays.

        Its cursor stays too. With another address it has to prove itself again.

        hook: Name or id of the webhook.
        url: Where events are posted to. It stands in the log, so keep secrets out of it.
        types: Send only events of this type, or of this kind with `vm.*`.
        subjects: Send only events about this: vm/NAME, node/NAME, or vm, node, cluster alone.
        tags: Send only events about VMs that had this tag then.
        batch: Events of one request at most; 1 sends each by itself.
        rate: Requests of one second at most.
        tries: Tries of one event before it is parked; ten take 75 hours.
        ownership: What proves that the receiver wants events: challenge: it repeats the ping's challenge.
        allow_private: A private network, CIDR or CIDR:PORT, in which the receiver may be.
        reveal_names: Send the names of people opened, rather than sealed as in the log.
        owner: Whose it is: it is sent what this principal may see. If nothing else is said, who adds it.
        description: Free text for people.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "webhook.modify",
            {
                "hook": hook,
                "url": url,
                "types": types,
                "subjects": subjects,
                "tags": tags,
                "batch": batch,
                "rate": rate,
                "tries": tries,
                "ownership": ownership,
                "allow_private": allow_private,
                "reveal_names": reveal_names,
                "owner": owner,
                "description": description,
            },
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def parked(
        self,
        hook: str,
        *,
        sort: Sequence[str] | None = None,
        limit: int | None = None,
    ) -> builtins.list[ParkedInfo]:
        """The events that a webhook was not given after the last try.

        Replaying their positions tries them anew.

        hook: The hook.
        sort: By these, one after the other; `-` before a name: the greatest first.
        limit: Items at most; None: all.
        """
        return await self._pages(
            "/webhooks/{hook}/parked",
            {"hook": hook, "sort": sort},
            ParkedInfo,
            items="items",
            cursor=("after", "next"),
            limit=limit,
        )

    async def pause(
        self,
        hook: str,
        *,
        reason: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Send a webhook nothing until it is resumed; what happens meanwhile is sent then.

        hook: Name or id of the webhook.
        reason: Free text for people.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "webhook.pause",
            {"hook": hook, "reason": reason},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def remove(
        self,
        hook: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Remove a webhook, with its cursor.

        hook: Name or id of the webhook.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command("webhook.remove", {"hook": hook}, dry_run=dry_run, wait=wait, key=key)

    async def replay(
        self,
        hook: str,
        *,
        since: str,
        until: str | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Send a webhook the records of a range again, before what comes next.

        Events keep their ids, so a receiver that remembers them passes over what it has. What is parked in the range is
        tried anew.

        hook: Name or id of the webhook.
        since: Where to begin: a position, a time, or how long ago.
        until: Where to end, that included. now where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "webhook.replay",
            {"hook": hook, "since": since, "until": until},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def resume(
        self,
        hook: str,
        *,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Go on sending, after a pause or after it was disabled; what failed is tried again at once.

        hook: Name or id of the webhook.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command("webhook.resume", {"hook": hook}, dry_run=dry_run, wait=wait, key=key)

    async def rotate_secret(
        self,
        hook: str,
        *,
        overlap_s: int | None = None,
        dry_run: bool = False,
        wait: float | None = None,
        key: str = "",
    ) -> AsyncOperation:
        """Sign with a new secret, which is shown once.

        For a while everything is signed with the old one too, so that the receiver can be changed without a gap.

        hook: Name or id of the webhook.
        overlap_s: How long the old secret is used as well, in seconds. 86400 where nothing is said.
        dry_run: Only say what would happen.
        wait: Wait for the end, for at most so many seconds, as `wait` of the result does.
        key: The idempotency key; one is made where none is given.
        """
        return await self._command(
            "webhook.rotate_secret",
            {"hook": hook, "overlap_s": overlap_s},
            dry_run=dry_run,
            wait=wait,
            key=key,
        )

    async def test(self, hook: str) -> TestReply:
        """Send a webhook a ping now, from this gateway, and show what it answers.

        It changes nothing: what proves a receiver is the ping that the primary sends.

        hook: The hook.
        """
        return await self._post("/webhooks/{hook}/test", {"hook": hook}, TestReply)


class AsyncGroups:
    """All methods of a client, in groups."""

    def __init__(self, calls: Calls) -> None:
        self.access = AsyncAccess(calls)
        """People, services and their tokens: who may do what."""
        self.audit = AsyncAudit(calls)
        """Who did what, and what is known of people."""
        self.cluster = AsyncCluster(calls)
        """The cluster as a whole."""
        self.faults = AsyncFaults(calls)
        """What is wrong."""
        self.log = AsyncLog(calls)
        """The log: what happened, proofs of it, and its care."""
        self.login = AsyncLogin(calls)
        """Logging people in at an issuer, for programs that do so themselves."""
        self.nodes = AsyncNodes(calls)
        """The hypervisors."""
        self.operations = AsyncOperations(calls)
        """What is under way."""
        self.vms = AsyncVms(calls)
        """The VMs."""
        self.webhooks = AsyncWebhooks(calls)
        """Who is told of events, and what became of it."""
