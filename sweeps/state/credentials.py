"""Passwords stay where they are given: in the environment or in a URL. Nothing that is shown may hold one."""

from __future__ import annotations

import logging
import os
import re
from urllib.parse import unquote

VARIABLES = (
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "PGPASSWORD",
)
"""Variables of the environment whose values are secret."""
HIDDEN = "***"
_IN_URL = re.compile(
    r"(?P<before>[a-z][a-z0-9+.-]*://[^\s/?#'\"<>@:]*:)"
    r"(?P<secret>(?!\d+/)[^\s'\"<>]+)(?=@)",  # not the port of a URL whose path holds an @
    re.IGNORECASE,
)
_IN_QUERY = re.compile(
    r"(?P<before>[?&;][\w.-]*(?:password|passwd|pwd|secret|token|key|signature|sig)=)"
    r"(?P<secret>[^&;#\s'\"<>]+)",
    re.IGNORECASE,
)
SHORTEST = 4
"""Length from which a secret is hidden wherever it stands; a shorter one only inside its URL."""
_known: set[str] = set()


def remember(*urls: str | None) -> None:
    """Note the secrets of the environment and of these URLs, so that ``hide`` finds them anywhere."""
    secrets = {value for name in VARIABLES if (value := os.environ.get(name))}
    for url in urls:
        for pattern in (_IN_URL, _IN_QUERY):
            secrets |= {match["secret"] for match in pattern.finditer(url or "")}
    secrets |= {unquote(secret) for secret in secrets}
    _known.update(secret for secret in secrets if len(secret) >= SHORTEST)


def hide(text: object) -> str:
    """Replace the passwords in a text: those in URLs, and every secret that ``remember`` noted."""
    shown = str(text)
    for pattern in (_IN_URL, _IN_QUERY):
        shown = pattern.sub(rf"\g<before>{HIDDEN}", shown)
    for secret in sorted(_known, key=len, reverse=True):
        shown = shown.replace(secret, HIDDEN)
    return shown


class Formatter(logging.Formatter):
    """A log formatter that hides passwords, in tracebacks as well."""

    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record))


def database_url(location: str) -> str:
    """Name the driver in a database URL: psycopg 3 for PostgreSQL."""
    scheme, separator, rest = location.partition("://")
    if scheme in ("postgres", "postgresql"):
        scheme = "postgresql+psycopg"
    return scheme + separator + rest
