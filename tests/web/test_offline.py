"""The page's process stays on this computer."""

from __future__ import annotations

import subprocess
import sys

import pytest

from fss.web.offline import is_this_computer

TRIES = """
import socket, threading
from fss.web.offline import stay_on_this_computer

stay_on_this_computer()
server = socket.create_server(("127.0.0.1", 0))
socket.create_connection(server.getsockname()).close()
print("here: connected")
for host in ("192.0.2.1", "example.org", "2001:db8::1"):
    try:
        socket.create_connection((host, 80), timeout=5)
    except ConnectionRefusedError as error:
        print(host, error, sep=": ")
with socket.socket(type=socket.SOCK_DGRAM) as datagrams:
    try:
        datagrams.sendto(b"", ("192.0.2.1", 53))
    except ConnectionRefusedError as error:
        print("datagram", error, sep=": ")
"""


def test_connections_to_other_computers_are_refused_and_told() -> None:
    done = subprocess.run([sys.executable, "-c", TRIES], capture_output=True, text=True, check=True)
    refused = ("192.0.2.1", "example.org", "2001:db8::1", "datagram")
    assert done.stdout.splitlines() == [
        "here: connected",
        *(f"{what}: the page works without a network" for what in refused),
    ]
    assert done.stderr.count("refused to connect") == 4


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", b"localhost", "LocalHost", "0.0.0.0", ""]
)
def test_loopback_is_this_computer(host: str | bytes) -> None:
    assert is_this_computer(host)


@pytest.mark.parametrize(
    "host", ["10.0.0.1", "localhost.example.org", "::2", b"example.org", "127.0.0.1.example.org"]
)
def test_everything_else_is_another(host: str | bytes) -> None:
    assert not is_this_computer(host)
