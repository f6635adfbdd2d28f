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
    found = {value for name in VARIABLES if (value := os.environ.get(name))}
    for url in urls:
        for pattern in (_IN_URL, _IN_QUERY):
            found |= {match["secret"] for match in pattern.finditer(url or "")}
    found |= {unquote(secret) for secret in found}
    _known.update(secret for secret in found if len(secret) >= SHORTEST)


def hide(text: object) -> str:
    """A text without passwords: those in URLs, and every secret that was remembered."""
    shown = str(text)
    for pattern in (_IN_URL, _IN_QUERY):
        shown = pattern.sub(rf"\g<before>{HIDDEN}", shown)
    for secret in sorted(_known, key=len, reverse=True):
        shown = shown.replace(secret, HIDDEN)
    return shown


class Formatter(logging.Formatter):
    """Log lines, tracebacks included, without passwords."""

    def format(self, record: logging.LogRecord) -> str:
        return hide(super().format(record))


def database_url(location: str) -> str:
    """A database URL with its driver named: PostgreSQL is spoken to through psycopg 3."""
    scheme, separator, rest = location.partition("://")
    if scheme in ("postgres", "postgresql"):
        scheme = "postgresql+psycopg"
    return scheme + separator + rest
