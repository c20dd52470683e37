"""Somebody who means well, in a process of their own: asks all the time, and says how long the answers took.

`python -m tests.fuzz.good_client PORT TLS TOKEN` goes on until its input is closed, then writes one line of JSON.
"""

from __future__ import annotations

import http.client
import json
import os
import ssl
import sys
import threading
import time

PAUSE_S = 0.02
TIMEOUT_S = 30.0

ADDRESS = "127.0.0.2"
"""Another one than the attackers': of those who share theirs, only who has a connection is sure to be served."""


class Asking:
    """Asks by turns on one connection that stays, and on a new one."""

    def __init__(self, port: int, context: ssl.SSLContext | None, token: str) -> None:
        self._port = port
        self._context = context
        self._headers = {"Authorization": f"Bearer {token}"}
        self._kept: http.client.HTTPConnection | None = None
        self.failures: list[str] = []
        self.took_s: dict[str, list[float]] = {"kept": [], "new": []}

    def go_on(self, until: threading.Event) -> None:
        """Ask until told to stop."""
        while not until.is_set():
            for kind in ("kept", "new"):
                began = time.monotonic()
                try:
                    self._ask(kind)
                except (OSError, http.client.HTTPException) as error:
                    self._kept = None
                    self.failures.append(f"{kind}: {type(error).__name__} {error}"[:120])
                self.took_s[kind].append(time.monotonic() - began)
            time.sleep(PAUSE_S)

    def _ask(self, kind: str) -> None:
        connection = self._kept if kind == "kept" and self._kept is not None else self._connected()
        connection.request("GET", "/api/v1/vms", headers=self._headers)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != http.client.OK:
            self.failures.append(f"{kind}: {answer.status} {body[:80]!r}")
        if kind == "kept":
            self._kept = connection
        else:
            connection.close()

    def _connected(self) -> http.client.HTTPConnection:
        here = (ADDRESS, 0)
        if self._context is None:
            return http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT_S, source_address=here)
        return http.client.HTTPSConnection(
            "127.0.0.1", self._port, timeout=TIMEOUT_S, context=self._context, source_address=here
        )


def main() -> None:
    """Until the input ends."""
    port, tls, token = int(sys.argv[1]), sys.argv[2] == "tls", sys.argv[3]
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if tls else None
    if context is not None:
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    asking, stop = Asking(port, context, token), threading.Event()
    thread = threading.Thread(target=asking.go_on, args=(stop,))
    thread.start()
    while os.read(0, 1024):
        pass
    stop.set()
    thread.join()
    took = sorted(asking.took_s["kept"] + asking.took_s["new"])
    said = {
        "asked": len(took),
        "failures": len(asking.failures),
        "first_failures": asking.failures[:3],
        "median_ms": round(took[len(took) // 2] * 1000, 1),
        "p99_ms": round(took[int(len(took) * 0.99)] * 1000, 1),
        "worst_ms": round(took[-1] * 1000, 1),
        "worst_kept_ms": round(max(asking.took_s["kept"], default=0.0) * 1000, 1),
    }
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
