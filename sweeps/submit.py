"""The file that ``ray submit`` copies to the head node and runs there.

    ray submit cluster.yaml sweeps/submit.py -- run studies/x.yaml

It joins the cluster's own Ray and hands every argument to ``musweep``; results stay on the head node until
they are fetched (``ray rsync-down``).
"""

from __future__ import annotations

import sys
from collections.abc import Sequence


def arguments(given: Sequence[str]) -> list[str]:
    """The arguments for ``musweep``: `run` joins the running cluster unless told otherwise."""
    wanted = [argument for argument in given if argument != "--"]
    if wanted[:1] == ["run"] and not any(a.startswith("--address") for a in wanted):
        wanted += ["--address", "auto"]
    return wanted


if __name__ == "__main__":
    from sweeps.__main__ import main

    sys.exit(main(arguments(sys.argv[1:])))
