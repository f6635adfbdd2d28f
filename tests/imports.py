"""What modules import, seen from a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Sequence

from studies import LIMIT_SECONDS, ROOT


def imported_by(modules: Sequence[str], forbidden: Sequence[str]) -> str:
    """Import modules in a fresh interpreter; return who asked for which of the forbidden packages, installed or not."""
    script = f"""
        import importlib, sys

        class Watch:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {tuple(forbidden)!r}:
                    print(current, "imports", name)
                return None

        sys.meta_path.insert(0, Watch())
        for current in {list(modules)!r}:
            importlib.import_module(current)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout
