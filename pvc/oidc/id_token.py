"""Whether an ID token is what it says, for us, and of now (OpenID Connect Core 3.1.3.7). No I/O.

The signature is PyJWT's to verify. What it is never asked is which algorithm would do: those are listed here, all
asymmetric, and the key must be of the algorithm's own kind, so that neither `none` nor a public key used as the secret
of an HMAC opens anything.
"""

from __future__ import annotations

import hmac
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import jwt
import msgspec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from pvc.errors import Unauthenticated

ALGORITHMS: Mapping[str, str] = {
    "RS256": "RSA",
    "RS384": "RSA",
    "RS512": "RSA",
    "PS256": "RSA",
    "PS384": "RSA",
    "PS512": "RSA",
    "ES256": "EC",
    "ES384": "EC",
    "ES512": "EC",
    "EdDSA": "OKP",
}
"""Allowed -> the kind of key that belongs to it."""

LEEWAY_S = 60
"""Between the issuer's clock and this node's."""

MAX_AGE_S = 600
"""A token is used within seconds of being issued; an old one was kept by somebody."""

MAX_TOKEN_BYTES = 64 * 1024
"""With hundreds of groups in it."""

MIN_RSA_BITS = 2048
"""Shorter ones have been factored, or will be."""

MAX_KEYS = 50
"""Of an issuer that are looked at."""


class UnknownKey(Unauthenticated):
    """It is signed with a key that the issuer's set, as known here, does not have; a newer set may."""

    default_code = "access.login_invalid"


def verify(
    token: str, keys: Sequence[Mapping[str, Any]], *, issuer: str, client_id: str, nonce: str | None
) -> dict[str, Any]:
    """The claims. `nonce` is the one that was asked for, None where none could be.

    Raises Unauthenticated, UnknownKey.
    """
    if len(token) > MAX_TOKEN_BYTES:
        raise _invalid("it is too large")
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.PyJWTError, ValueError, RecursionError) as error:
        raise _invalid(f"it cannot be read: {_first_line(error)}") from None
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in ALGORITHMS:
        raise _invalid(f"it is signed by {str(algorithm)[:20]!r}, which is not allowed")
    if header.get("crit"):
        raise _invalid("it asks for an extension that is not known")
    fitting = _fitting(keys, algorithm, header.get("kid"))
    if not fitting:
        raise UnknownKey("the issuer has no such key", hint=_HINT)
    claims = _verified(token, fitting, algorithm, issuer, client_id)
    _check_party(claims, client_id)
    if nonce is not None and not hmac.compare_digest(str(claims.get("nonce", "")).encode(), nonce.encode()):
        raise _invalid("it is not of this login")
    return claims


def keys_of(document: bytes) -> list[dict[str, Any]]:
    """The public signing keys of a key set (RFC 7517). Raises ValueError."""
    found = msgspec.json.decode(document, type=dict[str, Any]).get("keys")
    if not isinstance(found, list):
        raise ValueError("it has no keys")
    return [
        key for key in found[:MAX_KEYS] if isinstance(key, dict) and key.get("use", "sig") == "sig" and "d" not in key
    ]


def _fitting(keys: Sequence[Mapping[str, Any]], algorithm: str, kid: object) -> list[Mapping[str, Any]]:
    of_kind = [
        key for key in keys if key.get("kty") == ALGORITHMS[algorithm] and key.get("alg", algorithm) == algorithm
    ]
    return of_kind if kid is None else [key for key in of_kind if key.get("kid") == kid]


def _verified(
    token: str, keys: Sequence[Mapping[str, Any]], algorithm: str, issuer: str, client_id: str
) -> dict[str, Any]:
    why = "no key fits"
    for key in keys:
        try:
            with warnings.catch_warnings():  # of a short key; it is the issuer's to choose
                warnings.simplefilter("ignore")
                claims: dict[str, Any] = jwt.decode(
                    token,
                    _strong(jwt.PyJWK(dict(key), algorithm).key),  # type: ignore[no-untyped-call]
                    algorithms=[algorithm],
                    issuer=issuer,
                    audience=client_id,
                    leeway=LEEWAY_S,
                    options={"require": ["iss", "sub", "aud", "exp", "iat"]},
                )
            return claims
        except jwt.InvalidSignatureError as error:
            why = _first_line(error)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
            raise _invalid(_first_line(error)) from None
    raise _invalid(why)


def _strong(key: Any) -> Any:
    """The key, unless somebody could have found its other half."""
    if isinstance(key, RSAPublicKey) and key.key_size < MIN_RSA_BITS:
        raise ValueError(f"its key has {key.key_size} bits, and must have {MIN_RSA_BITS}")
    return key


def _check_party(claims: Mapping[str, Any], client_id: str) -> None:
    audience = claims["aud"]
    several = isinstance(audience, list) and len(audience) > 1
    if claims.get("azp", None if several else client_id) != client_id:
        raise _invalid("it was issued to another client")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= 255:
        raise _invalid("it names nobody")


def check_fresh(claims: Mapping[str, Any], now_s: float) -> None:
    """Raise Unauthenticated where the token was not issued just now."""
    issued = claims["iat"]
    if not isinstance(issued, int | float) or issued < now_s - MAX_AGE_S - LEEWAY_S:
        raise _invalid("it was issued long ago")


_HINT = "log in again; if it stays so, an admin compares the issuer with [oidc] in pvc.toml and the nodes' clocks"


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:150]


def _invalid(why: str) -> Unauthenticated:
    return Unauthenticated(f"the issuer's ID token cannot be accepted: {why}", code="access.login_invalid", hint=_HINT)
