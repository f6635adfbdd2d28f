"""The file that ``ray submit`` copies to the head node and runs there.

    ray submit cluster.yaml sweeps/submit.py -- run studies/x.yaml

It joins the cluster's own Ray and hands every argument to ``musweep``. Paths are those of the checkout, which
the cluster file mounts beside this file; results stay on the head node until they are fetched
(``ray rsync-down``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path


def arguments(given: Sequence[str]) -> list[str]:
    """Return the arguments for ``musweep``: `run` joins the running cluster unless an address is given."""
    wanted = [argument for argument in given if argument != "--"]
    told = any(a.startswith("--address") for a in wanted) or "RAY_ADDRESS" in os.environ
    if wanted[:1] == ["run"] and not told:
        wanted += ["--address", "auto"]
    return wanted


if __name__ == "__main__":
    checkout = Path(__file__).resolve().parent / "musweep"
    if checkout.is_dir():
        os.chdir(checkout)

    from sweeps.__main__ import main

    sys.exit(main(arguments(sys.argv[1:])))
