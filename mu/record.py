"""``TrialRecord``: everything a trial leaves behind, as one JSON line. Needs neither torch nor Ray.

A results file holds two kinds of line: `study` (what was asked for, written at each start; the last one
counts) and `trial`. The report is made from these lines alone.
"""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, dataclass, field, fields
from pathlib import Path
from typing import Any

from pydantic_core import from_json

SCHEMA = 2
STATUSES = ("finished", "stopped", "diverged", "failed")
CAUSES = ("exception", "memory", "timeout", "infrastructure")
REFERENCE_ROLES = ("original", "retrain")
PORTFOLIO = "portfolio"
"""The origin of knobs that are in the portfolio of a method."""


@dataclass(frozen=True, slots=True)
class TrialRecord:
    """One ended trial.

    Args:
        key: Content key: problem, cell, knobs, number and source. A finished key never runs again.
        phase: Name of the phase of its study, such as `search` or `confirm`.
        forget: Name of the forget request.
        method: Name of the method in the study, or `original` / `retrain` in the reference phase.
        seed: Seed of the problem.
        status: `finished`; `stopped` (by early stopping); `diverged` (non-finite); `failed` (see `cause`).
        knobs: Every knob of the method with the value used.
        number: Number of the trial's configuration within its search cell; None outside search and finalists.
        role: Of references: `search`, `finalist` or `report`, the seeds they serve; else empty.
        origin: Where the knobs of a search trial come from: `defaults`, the authors' own; `portfolio`, that of the
            method; the results folder of an earlier study; empty when the sampler drew them. Of
            a model that has learned a twin: `rewound` or `fine-tuned` (see ``mu.stand_ins``).
        source: Request whose tuned knobs were used; transfer phase only.
        problem: Content key of the problem.
        cell: Content key of all else that decides its numbers, but for knobs and number: the method's code, and what
            its phase asks for (in the search: ranges, objective, sampler and seeds). Trials are compared
            only with those of the same key.
        code: Digest of the method's code with which it ran (see ``mu.source``).
        alias_of: Name of the method's file, where the study calls the method by another; else empty.
        reason: Why the trial did not finish; the traceback of a failed one.
        cause: Of a failed trial, one of ``CAUSES``: the method raised an `exception`; it needed more `memory` than
            it had; it took longer than the study's `timeout`; its worker was lost each time, `infrastructure`,
            which says nothing of the method.
        warnings: What the method warned of: the trial ran, but its result may not be what it seems.
        metrics: View (`val`, `test`) to metric to value; empty unless finished. Gaps to retrained models are worked
            out when records are read (see ``mu.relative``); a results file has none.
        unavailable: ``view/metric`` to why it is not in `metrics`, such as too few samples for an attack.
        confusions: Set (`retain`, `forget`, or a view) to the cells of its confusion matrix that are not zero, as
            [true class, predicted class, samples]; phases that look at `test` only.
        distances: Of retrained models: key of the problem of another seed to the activation distance on D_f to its
            retrained model; of those that there were when it was recorded.
        curve: One entry per epoch: `epoch` (1-based; 0 is the model before unlearning), `seconds` spent by the
            method so far, `acc_retain`, `acc_forget`, `acc_test`, `avg_gap_natmu`, and with `asha` the objective, all on
            the `val` view.
        time_unlearn: Seconds the method took, evaluation not counted.
        time_total: Seconds the trial kept its slot.
        samples_seen: Samples passed forward with gradient.
        device_memory: GiB of a GPU that its process held at most; 0 on a CPU.
        host_memory: GiB of main memory that its process held at most.
        resources: What its slot holds: `cpus`, `gpus`, and custom resources by name.
        environment: Host, device and versions.
        started, ended: Seconds since the epoch.
    """

    key: str
    study: str
    phase: str
    forget: str
    method: str
    seed: int
    status: str
    knobs: dict[str, Any] = field(default_factory=dict)
    number: int | None = None
    role: str = ""
    origin: str = ""
    source: str | None = None
    problem: str = ""
    cell: str = ""
    code: str = ""
    alias_of: str = ""
    reason: str = ""
    cause: str = ""
    warnings: list[str] = field(default_factory=list)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    unavailable: dict[str, str] = field(default_factory=dict)
    confusions: dict[str, list[list[int]]] = field(default_factory=dict)
    distances: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)
    time_unlearn: float = 0.0
    time_total: float = 0.0
    samples_seen: int = 0
    device_memory: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)
    host_memory: float = 0.0
    environment: dict[str, str] = field(default_factory=dict)
    started: float = 0.0
    ended: float = 0.0

    @property
    def finished(self) -> bool:
        """Whether it ran to its end, so that it has metrics."""
        return self.status == "finished"

    @property
    def lost(self) -> bool:
        """Whether it says nothing of the method: a later run of the study runs it again."""
        return self.cause == "infrastructure"

    def cost(self, resource: str) -> float:
        """Return the seconds that the trial kept a resource, such as GPU-seconds of `gpus`."""
        return self.time_total * self.resources.get(resource, 0.0)


FIELDS = tuple(f.name for f in fields(TrialRecord))
"""What the line of a trial says, in this order."""
REQUIRED = tuple(f.name for f in fields(TrialRecord) if f.default is f.default_factory is MISSING)
"""What every trial's line must say."""


def to_line(kind: str, content: dict[str, Any]) -> str:
    """Return one line of a results file, without the newline; numbers that are not finite become null."""
    line = {"kind": kind, "schema": SCHEMA, **content}
    try:
        return json.dumps(line, separators=(",", ":"), allow_nan=False)
    except ValueError:  # some number is not finite, which is rare
        return json.dumps(_finite(line), separators=(",", ":"), allow_nan=False)


def trial_line(record: TrialRecord) -> str:
    """Return the line of a trial, without the newline."""
    return to_line("trial", {name: getattr(record, name) for name in FIELDS})


@contextmanager
def without_collection() -> Iterator[None]:
    """Make many objects without looking for garbage among them, which takes as long as making them."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@without_collection()
def read(path: Path) -> tuple[dict[str, Any], list[TrialRecord]]:
    """Read a results file: the last `study` line and every trial, each with its latest line.

    A trial that did not fail does not give way to a repetition that did. A last line that a crash cut short is left out.

    Raises:
        ValueError: A line is not of a schema or kind this version knows, or a trial lacks a field; the
            message names file and line.
    """
    study: dict[str, Any] = {}
    trials: dict[str, TrialRecord] = {}
    with path.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                content = _parse(line)
            except ValueError as error:
                if not line.endswith(b"\n"):
                    break
                raise ValueError(f"{path}:{number}: not a JSON line: {error}") from error
            schema = content.get("schema") if isinstance(content, dict) else None
            if schema == 1:
                raise ValueError(
                    f"{path}:{number}: was written by musweep 0.1, whose results later versions do not read; "
                    "use another study name or --results, or musweep 0.1"
                )
            if schema != SCHEMA:
                raise ValueError(f"{path}:{number}: schema is not {SCHEMA}; use a matching musweep")
            if content.get("kind") == "study":
                study = content
            elif content.get("kind") == "trial":
                record = _trial(content, f"{path}:{number}")
                before = trials.get(record.key)
                if before is None or record.status != "failed" or before.status == "failed":
                    trials[record.key] = record
            else:
                kind = content.get("kind")
                raise ValueError(
                    f"{path}:{number}: kind must be `study` or `trial`, but got {kind!r}"
                )
    return study, list(trials.values())


def from_line(line: str | bytes) -> TrialRecord:
    """Return a record from its line, as ``trial_line`` writes it; null metrics become NaN.

    Raises:
        ValueError: It is not JSON.
        AttributeError, TypeError: It is not a trial.
    """
    return _from_content(_parse(line))


def _parse(line: str | bytes) -> Any:
    """Parse a line in a third of the time of `json`; short strings, such as names of metrics, are one object in all records.

    Raises:
        ValueError: It is not JSON.
    """
    try:
        return from_json(line, cache_strings="all")
    except ValueError:
        return json.loads(
            line
        )  # half of a surrogate pair, as in the name of a file that is not UTF-8


def _from_content(content: dict[str, Any]) -> TrialRecord:
    record = TrialRecord(**{name: content[name] for name in FIELDS if name in content})
    for values in (*record.metrics.values(), *record.curve):
        if None in values.values():
            values |= {name: math.nan for name, value in values.items() if value is None}
    return record


def _trial(content: dict[str, Any], where: str) -> TrialRecord:
    """Return a record from a parsed line, or raise a ValueError that says what is wrong with it, and where."""
    missing = [name for name in REQUIRED if name not in content]
    if missing:
        raise ValueError(f"{where}: a trial without {', '.join(f'`{name}`' for name in missing)}")
    try:
        return _from_content(content)
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{where}: not a trial: {error}") from error


def write(path: Path, lines: Iterable[str]) -> None:
    """Write a whole results file; it is for tests and tools, the sweep itself appends."""
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return value
