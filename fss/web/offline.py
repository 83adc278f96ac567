"""Keeps this process on this computer: connections to any other one are refused."""

from __future__ import annotations

import ipaddress
import sys

from fss.display.shown import shown

_NAMES = {"", "localhost", "ip6-localhost"}
_REASON = "the page works without a network"


def stay_on_this_computer() -> None:
    """From now on, nothing in this process connects to another computer or asks for its address.

    The page sends nothing anywhere, and neither shall a library that it uses, even when a request to the page
    tells it to fetch a picture from an address. Python's audit hooks (PEP 578) see every socket, and cannot be
    removed. A refused connection raises `ConnectionRefusedError` where it was tried, and is reported on stderr.
    """
    sys.addaudithook(_refuse_other_computers)


def _refuse_other_computers(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # a Unix socket's address is a path
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    if host is not None and not is_this_computer(host):
        print(f"refused to connect to {shown(host)}: {_REASON}", file=sys.stderr, flush=True)
        raise ConnectionRefusedError(_REASON)


def is_this_computer(host: object) -> bool:
    """Whether a host name or address (str or bytes) is this computer's loopback, or that of any address."""
    name = host.decode(errors="replace") if isinstance(host, bytes) else str(host)
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name.lower() in _NAMES
    return address.is_loopback or address.is_unspecified
