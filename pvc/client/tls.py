"""The TLS settings of a connection whose gateway some authority vouches for."""

from __future__ import annotations

import ssl

from pvc.client.connections import Connection
from pvc.client.errors import ConfigError


def tls_context(connection: Connection) -> ssl.SSLContext:
    """The system's authorities, or the connection's own `ca_file`. Raises ConfigError."""
    try:
        return ssl.create_default_context(cafile=connection.ca_file or None)
    except OSError as error:
        raise ConfigError(
            f"the CA file {connection.ca_file!r} of connection {connection.name!r} cannot be used: "
            f"{error.strerror or error}",
            hint="give a PEM file with the authority's certificate",
        ) from error
