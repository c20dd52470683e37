"""Everything that can happen to principals, their tokens (of which the log holds only hashes), and people's names."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from pvc.events.types import END, PrincipalKind, Role


class Grant(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A role, on the whole cluster, or limited to the VMs that have a tag, or a name that matches, or both."""

    role: Annotated[Role, Meta(description="The role.", examples=["operator"])]
    tag: Annotated[
        str,
        Meta(
            pattern=r"^([A-Za-z0-9][A-Za-z0-9._:-]{0,62})?" + END,
            description="Only on VMs with this tag.",
            examples=["shop"],
        ),
    ] = ""
    name: Annotated[
        str,
        Meta(
            pattern=r"^[a-z0-9*?!\[\]-]{0,63}" + END,
            description="Only on VMs whose name matches, with `*`, `?` and `[...]`.",
            examples=["shop-*"],
        ),
    ] = ""

    @property
    def limited(self) -> bool:
        """Whether it is for some VMs only."""
        return bool(self.tag or self.name)


class PrincipalAdded(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A person or a service may have tokens, and may do what the grants say."""

    TYPE: ClassVar[str] = "access.principal_added"
    id: str
    """Public, for the history; tells nothing of the name."""
    principal: str
    """The name, sealed (`pvc.events.sealed`)."""
    kind: PrincipalKind
    grants: tuple[Grant, ...]
    description: str = ""
    identity: str = ""
    """Of who logs in at the configured issuer: a hash of issuer and subject, keyed with the person's own key. Whoever
    has another one is somebody else, whatever their name."""


class PrincipalModified(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """What a principal may do, or what is said of it, is another thing from here on. None: as it was."""

    TYPE: ClassVar[str] = "access.principal_modified"
    id: str
    principal: str
    kind: PrincipalKind | None = None
    grants: tuple[Grant, ...] | None = None
    description: str | None = None


class PrincipalRemoved(Struct, frozen=True, kw_only=True, gc=False):
    """The principal is none any more, and none of its tokens opens anything."""

    TYPE: ClassVar[str] = "access.principal_removed"
    id: str
    principal: str


class TokenCreated(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A token was made for a principal; the secret was shown once and is not here."""

    TYPE: ClassVar[str] = "access.token_created"
    token: str
    """The token's public id."""
    principal: str
    """Whose it is; sealed (`pvc.events.sealed`), as it is the name of a person. Who was none yet is one from here on,
    with the token's role on the whole cluster: so the first admin comes about."""
    role: Role
    """The most that it may do: what both the principal and a holder of this role may."""
    secret_sha256: str
    """Hex SHA-256 of the secret, which has 256 random bits and so needs no slow hash."""
    expires_us: int = 0
    """From when on it opens nothing; 0: never."""
    replaces: str = ""
    """The token in whose place it was made."""
    description: str = ""


class TokenRotated(Struct, frozen=True, kw_only=True, gc=False):
    """Another token has taken a token's place, which still opens for a while so that both can be changed over."""

    TYPE: ClassVar[str] = "access.token_rotated"
    token: str
    replaced_by: str
    expires_us: int
    """From when on the old one opens nothing."""


class TokenRevoked(Struct, frozen=True, kw_only=True, gc=False):
    """The token opens nothing from here on."""

    TYPE: ClassVar[str] = "access.token_revoked"
    token: str


class TokenUsed(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: the token was used. Once a day for each address and gateway, so that use does not fill the log."""

    TYPE: ClassVar[str] = "access.token_used"
    token: str
    node: str
    """Whose gateway it opened."""


class LoggedIn(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A person has proven at the configured issuer who they are, and was given a token."""

    TYPE: ClassVar[str] = "access.logged_in"
    token: str
    node: str
    """Whose gateway verified it."""
    issuer: str
    how: str
    """`browser`, `device` or `renewal`."""


class LoginRefused(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Fact: somebody came with a token that opens nothing, or a login failed. Few are recorded, the rest counted."""

    TYPE: ClassVar[str] = "access.login_refused"
    node: str
    code: str
    """Why, as the caller was told."""
    network: str
    """Where from: the /24 or /48 that the address is in, for the address may be a person's."""
    token: str = ""
    """The token's id where there is such a token."""
    unrecorded: int = 0
    """How many more were refused on this node since the last record of the kind."""


class AccessRefused(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """An authenticated principal asked for what it may not have. Changes nothing."""

    TYPE: ClassVar[str] = "access.refused"
    action: str
    """What the principal may not do (`pvc.commands.access_table`)."""
    code: str
    message: str
    token: str = ""
    """The token that it came with."""
    vm: str = ""
    """The id of the VM it was about, where it was about one."""
    unrecorded: int = 0
    """How many more of this principal were refused on this node since the last record of the kind."""


class SecretRead(Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """Somebody was given what must not come into other hands: keys of people, or the stored log and state."""

    TYPE: ClassVar[str] = "access.secret_read"
    what: str
    """The endpoint that gave it."""
    token: str = ""
    """The token that the reader came with; none: root."""
    unrecorded: int = 0
    """How many more times the same reader read such things on this node since the last record of the kind."""


class ErasureRequested(Struct, frozen=True, kw_only=True, gc=False):
    """The key that makes a person's name and addresses readable is to be destroyed. No node opens them from here on."""

    TYPE: ClassVar[str] = "access.erasure_requested"
    key: str
    """The key's id, 8 hex digits. The name stands nowhere."""


class PersonErased(Struct, frozen=True, kw_only=True, gc=False):
    """Fact: that key is destroyed, and what was sealed with it can be read by nobody any more."""

    TYPE: ClassVar[str] = "access.person_erased"
    key: str
    node: str
    """Which destroyed it."""
