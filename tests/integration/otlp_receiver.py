"""An OTLP receiver in a process of its own: takes spans over HTTP as their definition says, and writes them as JSON.

`python -m tests.integration.otlp_receiver FILE` prints its port, and appends one line for each span to FILE.
"""

from __future__ import annotations

import gzip
import json
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)


def told(body: bytes) -> list[dict[str, Any]]:
    """The spans of one delivery, flat."""
    request = ExportTraceServiceRequest()
    request.ParseFromString(body)
    found = []
    for resource in request.resource_spans:
        about = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
        for scope in resource.scope_spans:
            found += [
                {
                    "name": span.name,
                    "trace": span.trace_id.hex(),
                    "span": span.span_id.hex(),
                    "parent": span.parent_span_id.hex(),
                    "node": about["service.instance.id"],
                    "ms": (span.end_time_unix_nano - span.start_time_unix_nano) / 1e6,
                }
                for span in scope.spans
            ]
    return found


def main() -> None:
    file = Path(sys.argv[1])

    class Taker(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if self.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            with file.open("a") as out:
                out.writelines(f"{json.dumps(span)}\n" for span in told(body))
            self.send_response(200)
            self.send_header("Content-Type", "application/x-protobuf")
            self.end_headers()
            self.wfile.write(ExportTraceServiceResponse().SerializeToString())

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Taker)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
