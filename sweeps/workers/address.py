"""Whether a Ray cluster answers at an address, asked before anything is loaded: Ray itself tries for minutes."""

from __future__ import annotations

import os
import socket

from sweeps.errors import StudyError

ANSWER_SECONDS = 5.0
"""How long a cluster may take to accept a connection, and again to speak its protocol."""


def check_cluster(address: str) -> None:
    """Return when a Ray cluster answers at `address`, or on this machine for `auto`.

    Raises:
        StudyError: None does, or it is no address; the message is one line.
    """
    where = f"--address {address}"
    host, _, port = _resolved(address, where).rpartition(":")
    if not host or not port.isdigit():
        raise StudyError(f"{where}: must be `auto` or HOST:PORT of a running Ray cluster")
    try:
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_SECONDS).close()
    except (OSError, OverflowError) as error:
        raise StudyError(f"{where}: no Ray cluster answers there: {error}") from error
    if os.environ.get("RAY_USE_TLS", "0") == "0" and not _speaks_grpc(f"{host}:{port}"):
        raise StudyError(
            f"{where}: what answers there is no Ray cluster; it listens on port 6379 unless told "
            "otherwise (8265 is its dashboard)"
        )


def _resolved(address: str, where: str) -> str:
    """Return the host and port that Ray would connect to."""
    if address.startswith("ray://"):
        return address.removeprefix("ray://")
    from ray._private import services

    resolve = getattr(services, "canonicalize_bootstrap_address", None)  # there is no public name
    try:
        found = address if resolve is None else resolve(address)
    except (OSError, ValueError) as error:
        raise StudyError(f"{where}: {error}") from error
    if found is None:
        raise StudyError(f"{where}: no Ray runs on this machine; `ray start --head` starts one")
    return found


def _speaks_grpc(address: str) -> bool:
    """Return whether a server speaks the protocol of Ray's head; other servers answer in words of their own."""
    import grpc

    channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
    try:
        grpc.channel_ready_future(channel).result(timeout=ANSWER_SECONDS)
    except grpc.FutureTimeoutError:
        return False
    finally:
        channel.close()
    return True
