"""``python -m sweeps.tracking.open_page ADDRESS PAGE``: open a page in a browser once its server answers."""

from __future__ import annotations

import sys
import time
import urllib.request
import webbrowser

START_SECONDS = 60.0
"""How long a server may take to answer."""


def main(address: str, page: str) -> bool:
    """Wait for the server at `address`, and open `page` there; return whether a browser took it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{address}/health", timeout=2):
                return webbrowser.open(f"{address}/{page}")
        except OSError:
            time.sleep(0.3)
    return False


if __name__ == "__main__":
    sys.exit(not main(*sys.argv[1:3]))
