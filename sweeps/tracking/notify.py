"""A notice to a web address of how a run ended. If it fails, that is only a warning."""

from __future__ import annotations

import base64
import json
import logging
import urllib.request
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from sweeps.study.resources import shown

logger = logging.getLogger(__name__)
SECONDS = 10.0
"""How long the receiver may take."""


def tell(url: str, content: Mapping[str, Any]) -> bool:
    """POST `content` as JSON and return whether it was accepted. Never raises, and never shows the secrets in the URL."""
    try:
        with urllib.request.urlopen(_request(url, content), timeout=SECONDS):
            return True
    except Exception as error:
        reason = getattr(error, "reason", None) or type(error).__name__
        logger.warning("notify: %s was not told: %s", shown(url), reason)
        return False


def _request(url: str, content: Mapping[str, Any]) -> urllib.request.Request:
    """User and password of a URL travel in a header."""
    parts = urlsplit(url)
    headers = {"Content-Type": "application/json", "User-Agent": "musweep"}
    if parts.username is not None:
        login = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        headers["Authorization"] = "Basic " + base64.b64encode(login.encode()).decode()
    plain = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    return urllib.request.Request(plain, json.dumps(content).encode(), headers, method="POST")
