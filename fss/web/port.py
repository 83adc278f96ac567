"""Where the page is: a port of this computer's own address."""

from __future__ import annotations

import socket

ADDRESS = "127.0.0.1"


def check_port(port: int) -> None:
    """Raises OSError, with what to do, if a port cannot be listened on: before a model is loaded for it."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as the server does
        try:
            probe.bind((ADDRESS, port))
        except (OSError, OverflowError) as error:
            raise OSError(f"port {port} cannot be used ({error}): choose another with --port") from error
