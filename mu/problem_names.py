"""Names of problems: that of a forget request, or of a stand-in of it (see ``mu.stand_ins``). Needs no torch."""

from __future__ import annotations

SEPARATOR = "/"
"""Parts the name of a request from the kind of a stand-in; no request has it in its name."""
REWIND, EPOCHS, DATA, MODEL = 2 / 3, 1 / 10, 1 / 4, 1 / 4
"""Share of the training after which the twin's begins; share of the epochs, and of D_r, of a cheap retrained model; what a
smaller network costs is not known before it is trained, and taken for a quarter."""
COSTS = {"twin": 1 - REWIND, "epochs": EPOCHS, "data": DATA, "model": MODEL}
"""Kind of stand-in to what its training costs, in retrainings."""


def stand_in_name(forget: str, kind: str) -> str:
    """Return the name of a stand-in of a request."""
    return f"{forget}{SEPARATOR}{kind}"


def request_of(name: str) -> str:
    """Return the request that a problem's name is of, whether it is the request's own or that of a stand-in."""
    return name.partition(SEPARATOR)[0]


def kind_of(name: str) -> str:
    """Return the kind of the stand-in that a problem's name is of; empty for a request itself."""
    return name.partition(SEPARATOR)[2]
