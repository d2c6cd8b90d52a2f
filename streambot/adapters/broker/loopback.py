"""Loopback ports, and whether a Kafka broker answers there."""

from __future__ import annotations

import asyncio
import errno
import secrets
import socket
import struct

from streambot.domain.errors import BrokerError

HOST = "127.0.0.1"
# Below the ephemeral range: a client that keeps dialling a closed port inside it sooner or later
# connects to itself, and the broker that comes back finds its port in use.
PORTS = range(20_000, 32_000)
_TRIES = 64
_METADATA, _VERSION, _CORRELATION = 3, 2, 7


def port_is_free(port: int) -> bool:
    """True where nobody listens at that loopback port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True


def choose_port(asked: int | None = None) -> int:
    """The port asked for, or a random free one.

    Raises:
        BrokerError: the port is in use, or no free one was found.
    """
    if asked is not None:
        if not 0 < asked < 65_536:
            raise BrokerError(f"{asked} is no port")
        if not port_is_free(asked):
            raise BrokerError(
                f"port {asked} is in use", where=f"{HOST}:{asked}", hint="choose another port"
            )
        return asked
    for _ in range(_TRIES):
        port = PORTS[secrets.randbelow(len(PORTS))]
        if port_is_free(port):
            return port
    raise BrokerError(f"no free port found between {PORTS.start} and {PORTS.stop}", where=HOST)


async def cluster_id(port: int, timeout_s: float = 1.0) -> str | None:
    """Name of the cluster that answers at a loopback port; None while nobody does.

    Asks with a metadata request (version 2) about no topics: it changes nothing, and every broker
    that can keep a stream answers it.
    """
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(HOST, port)
            try:
                request = struct.pack(">hhihi", _METADATA, _VERSION, _CORRELATION, -1, 0)
                writer.write(struct.pack(">i", len(request)) + request)
                (size,) = struct.unpack(">i", await reader.readexactly(4))
                return _parse_cluster_id(await reader.readexactly(min(size, 1 << 16)))
            finally:
                writer.close()
                await writer.wait_closed()
    except (OSError, EOFError, TimeoutError, struct.error, UnicodeDecodeError):
        return None


def _parse_cluster_id(answer: bytes) -> str:
    correlation, count = struct.unpack_from(">ii", answer)
    if correlation != _CORRELATION or not 0 <= count < 1_000:
        raise struct.error
    at = 8
    for _ in range(count):  # node id, host, port, rack
        at += 4
        at += 2 + struct.unpack_from(">h", answer, at)[0]
        at += 4
        at += 2 + max(0, struct.unpack_from(">h", answer, at)[0])
    size = struct.unpack_from(">h", answer, at)[0]
    return answer[at + 2 : at + 2 + size].decode()
