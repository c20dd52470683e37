"""Bytes for a socket: HTTP that is none, HTTP of two minds, and what chance makes of good HTTP."""

from __future__ import annotations

import random
from collections.abc import Sequence

HOST = b"Host: pvc\r\n"
GET = b"GET /api/v1/vms HTTP/1.1\r\n" + HOST
POST = b"POST /api/v1/vms HTTP/1.1\r\n" + HOST
JSON = b"Content-Type: application/json\r\n"
SMUGGLED = b"GET /health?smuggled HTTP/1.1\r\nHost: pvc\r\n\r\n"
UPGRADE = (
    b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

CRAFTED: tuple[tuple[bytes, ...], ...] = (
    # Where does the body end?
    (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + SMUGGLED,),
    (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + SMUGGLED,),
    (POST + b"Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + SMUGGLED,),
    (POST + b"Content-Length: 0, 50\r\n\r\n" + SMUGGLED,),
    (POST + b"Content-Length: +5\r\n\r\nabcde",),
    (POST + b"Content-Length: -1\r\n\r\n",),
    (POST + b"Content-Length: 0x5\r\n\r\nabcde",),
    (POST + b"Content-Length: 5 5\r\n\r\nabcde",),
    (POST + b"Content-Length: \xb2\r\n\r\nab",),
    (POST + b"Content-Length: 99999999999999999999999\r\n\r\nabc",),
    (POST + b"Content-Length:\r\n\r\nabc",),
    (POST + b"Content-Length : 5\r\n\r\nabcde",),
    (POST + b" Content-Length: 5\r\n\r\nabcde",),
    (POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,),
    (POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + SMUGGLED,),
    (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n" + SMUGGLED,),
    (POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n" + SMUGGLED,),
    (POST + b"Transfer-Encoding: \xffchunked\r\n\r\n0\r\n\r\n",),
    (POST + b"Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n5;a=\n\r\nabcde\r\n0\r\n\r\n",),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n5\nabcde\n0\n\n" + SMUGGLED,),
    (POST + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFFFFFFFFFFFFFFF\r\n",),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n-5\r\nabcde\r\n0\r\n\r\n",),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n5" + b";x" * 40_000 + b"\r\nabcde\r\n0\r\n\r\n",),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n5\r\nabcdeXX0\r\n\r\n" + SMUGGLED,),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 9\r\nX: \0\r\n\r\n" + SMUGGLED,),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n", b"ZZ\r\n"),
    (POST + b"Transfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 5_000,),
    # Where does a line end, and what is a header?
    (b"GET /health HTTP/1.1\nHost: pvc\n\n",),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\rX: y\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\nX: a\r\n b\r\n\tc\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\n Host: pvc\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\nHost: other\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\n: nameless\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\nX\0Y: z\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\nX: \0\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\nno colon\r\n\r\n",),
    (GET + b"Authorization: Bearer a\r\nAuthorization: Bearer b\r\n\r\n",),
    (GET + b"Authorization: Bearer \xff\xfe\r\n\r\n",),
    (GET + b"Authorization: PVC-Peer hv2 1 " + b"0" * 64 + b"\r\n\r\n",),
    (GET + b"".join(b"X-%d: y\r\n" % number for number in range(3_000)) + b"\r\n",),
    (GET + b"X: " + b"y" * 300_000 + b"\r\n\r\n",),
    (b"GET /" + b"a" * 300_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET /api/v1/vms?" + b"name=x&" * 8_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n",),
    # What is asked?
    (b"GET /health\r\n\r\n",),
    (b"GET /health HTTP/0.9\r\n\r\n",),
    (b"GET /health HTTP/1.0\r\n\r\n",),
    (b"GET /health HTTP/1.2\r\n" + HOST + b"\r\n",),
    (b"GET /health HTTP/9.9\r\n" + HOST + b"\r\n",),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0",),
    (b"GET http://pvc/health HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET //evil.example/health HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET /../../etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET /api/v1/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET /api%2fv1%2fvms HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET /api/v1/vms%00 HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET /%ff%fe%fd HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET /%zz%1 HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"GET /health%0d%0aSet-Cookie:%20a=b HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"OPTIONS * HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"CONNECT 127.0.0.1:22 HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"TRACE /health HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"G\xffT /health HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"A" * 70_000,),
    (b"\r\n" * 10_000 + b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n",),
    (b"\0" * 100_000,),
    (bytes.fromhex("16030100ee010000ea0303") + bytes(200),),
    (b"SSH-2.0-OpenSSH_9.2\r\n",),
    (b"EHLO evil.example\r\nMAIL FROM:<>\r\n",),
    (b"\x80\x2e\x01\x03\x01",),
    # One after the other, and something in between.
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\n\r\n" * 200,),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\n\r\n" * 3 + b"\0\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\nHost: pvc\r\n\r\n", b"garbage\r\n\r\n"),
    (POST + b"Expect: 100-continue\r\nContent-Length: 5\r\n\r\n", b"abcde"),
    (POST + b"Expect: 200-maybe\r\nContent-Length: 5\r\n\r\nabcde",),
    (GET + b"Connection: close, keep-alive, upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",),
    (GET + UPGRADE + b"\r\n",),
    (b"GET /health HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n",),
    (b"POST /health HTTP/1.1\r\n" + HOST + UPGRADE + b"Content-Length: 3\r\n\r\nabc",),
    (b"GET /api/v1/vms/web01/console HTTP/1.1\r\n" + HOST + UPGRADE + b"\r\n\x81\x82\0\0\0\0\xff\xfe",),
    (b"GET /api/v1/vms/web01/console HTTP/1.1\r\n" + HOST + UPGRADE + b"X: " + b"y" * 20_000 + b"\r\n\r\n",),
    (b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n" + GET + UPGRADE + b"Content-Length: 9\r\n\r\n",),
)

INSERTED = (b"\0", b"\r", b"\n", b"\r\n", b" ", b"\t", b":", b"\xff", b"%00", b"0", b"-", b"chunked", b"\r\n\r\n", b";")


def chance(rng: random.Random, token: bytes) -> Sequence[bytes]:
    """Parts to be sent one after the other: something crafted, or a good request that was damaged."""
    parts = list(rng.choice(CRAFTED))
    if rng.random() < 0.5:
        parts = [_good(rng, token)]
    if rng.random() < 0.7:
        at = rng.randrange(len(parts))
        parts[at] = _damaged(rng, parts[at])
    if rng.random() < 0.3:
        whole = b"".join(parts)
        cuts = sorted(rng.randrange(len(whole) + 1) for _ in range(rng.randrange(1, 5)))
        parts = [whole[first:last] for first, last in zip([0, *cuts], [*cuts, len(whole)], strict=True)]
    if rng.random() < 0.2:
        parts.pop()
    return parts


def _good(rng: random.Random, token: bytes) -> bytes:
    signed = b"Authorization: Bearer " + token + b"\r\n" if rng.random() < 0.5 else b""
    body = b'{"name": "w%d", "memory_mib": 64}' % rng.randrange(1 << 30)
    match rng.randrange(5):
        case 0:
            return GET + signed + b"\r\n"
        case 1:
            return POST + signed + JSON + b"Content-Length: %d\r\n\r\n" % len(body) + body
        case 2:
            chunks = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
            return POST + signed + JSON + b"Transfer-Encoding: chunked\r\n\r\n" + chunks
        case 3:
            return b"GET /api/v1/events?wait_s=0&after=0 HTTP/1.1\r\n" + HOST + signed + b"\r\n"
    return b"GET /api/v1/history?subject=vm/web01 HTTP/1.1\r\n" + HOST + signed + b"\r\n"


def _damaged(rng: random.Random, data: bytes) -> bytes:
    changed = bytearray(data[:400_000])
    for _ in range(rng.randrange(1, 5)):
        at = rng.randrange(min(len(changed), 2_000) + 1)
        match rng.randrange(4):
            case 0:
                changed[at:at] = rng.choice(INSERTED)
            case 1:
                del changed[at : at + rng.randrange(1, 8)]
            case 2:
                changed[at : at + 1] = rng.randbytes(1)
            case _:
                changed[at:at] = changed[at : at + rng.randrange(1, 60)]
    return bytes(changed)
