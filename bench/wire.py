"""How judge, zygote, keeper and candidate talk: length-prefixed JSON of bounded size over unix sockets, no pickle."""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from typing import Any

MAX_BYTES = 1 << 20  # a candidate's message longer than this is an attack or a bug, and is refused unread


class Closed(Exception):
    """The other side is gone."""


class TimedOut(Exception):
    """Nothing whole arrived before the deadline."""


class BadMessage(Exception):
    """What arrived is not a message of ours."""


def send(sock: socket.socket, message: dict[str, Any], fds: list[int] | None = None, timeout: float = 30.0) -> None:
    data = json.dumps(message).encode()
    if len(data) > MAX_BYTES:
        raise BadMessage(f"a message of {len(data)} bytes; at most {MAX_BYTES} are sent")
    frame = struct.pack(">I", len(data)) + data
    sock.settimeout(timeout)
    try:
        if fds:
            sent = socket.send_fds(sock, [frame], fds)
            frame = frame[sent:]
        sock.sendall(frame)
    except TimeoutError as error:
        raise TimedOut("the other side reads nothing") from error
    except OSError as error:
        raise Closed(str(error)) from error


def recv(sock: socket.socket, timeout: float | None, spin_s: float = 0.0) -> dict[str, Any]:
    """One message. `timeout` bounds the whole of it, so a trickle of bytes cannot hold the judge up.

    For `spin_s` it asks without sleeping: to be woken takes up to 0.3 ms, and a clock may be running.
    """
    if spin_s:
        _spin(sock, time.monotonic() + spin_s)
    deadline = None if timeout is None else time.monotonic() + timeout
    (size,) = struct.unpack(">I", _read(sock, 4, deadline))
    if size > MAX_BYTES:
        raise BadMessage(f"announced {size} bytes; at most {MAX_BYTES} are read")
    return _parse(_read(sock, size, deadline))


def recv_with_fds(sock: socket.socket, max_fds: int) -> tuple[dict[str, Any], list[int]]:
    """One message and the descriptors that came with its first byte. Waits as long as it takes."""
    head, fds, _flags, _address = socket.recv_fds(sock, 4, max_fds)
    if not head:
        raise Closed("end of file")
    head += _read(sock, 4 - len(head), None)
    (size,) = struct.unpack(">I", head)
    return _parse(_read(sock, size, None)), list(fds)


def _spin(sock: socket.socket, until: float) -> None:
    """Until something is there to be read, be it the end."""
    sock.setblocking(False)
    while time.monotonic() < until:
        try:
            sock.recv(1, socket.MSG_PEEK)
            return
        except BlockingIOError:
            continue
        except OSError as error:
            raise Closed(str(error)) from error


def _read(sock: socket.socket, count: int, deadline: float | None) -> bytes:
    parts: list[bytes] = []
    sock.setblocking(False)
    while count:
        try:
            part = sock.recv(min(count, 65536))
        except BlockingIOError:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                raise TimedOut("no answer in time") from None
            select.select([sock], [], [], left)
            continue
        except OSError as error:
            raise Closed(str(error)) from error
        if not part:
            raise Closed("end of file")
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise BadMessage(f"not JSON: {error}") from error
    if not isinstance(message, dict):
        raise BadMessage("not a JSON object")
    return message
