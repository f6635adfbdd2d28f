"""A Ray that is started here listens on 127.0.0.1 alone, so that nobody on the network can reach it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from ray._private import ray_constants


@contextmanager
def only() -> Iterator[None]:
    """Around ``ray.init``: let Ray do what it does where it knows no clusters (macOS, Windows).

    Elsewhere it listens on every interface, and turns a loopback address that is given to it into another.
    """
    name, known = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR, ray_constants.ENABLE_RAY_CLUSTER
    given = os.environ.get(name)
    os.environ[name], ray_constants.ENABLE_RAY_CLUSTER = "0", False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = known
        del os.environ[name]
        if given is not None:
            os.environ[name] = given
