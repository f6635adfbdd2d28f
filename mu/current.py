"""Which records of a results file belong to the study as it is asked for now. Needs neither torch nor Ray.

A study may change between its runs: other ranges, an edited method, other metrics. What an earlier form of it recorded stays
in the file and counts for nothing, until the study takes that form again.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mu import record
from mu.keys import content_key
from mu.problem_names import request_of
from mu.record import TrialRecord
from mu.relative import compared


@record.without_collection()
def read_current(path: Path) -> tuple[dict[str, Any], list[TrialRecord]]:
    """Read a results file: the last `study` line, and the records that belong to it, with their gaps.

    Raises:
        ValueError: As ``mu.record.read``.
    """
    line, records = record.read(path)
    return line, compared(current(records, line), line)


def name_in_study(entry: Mapping[str, Any]) -> str:
    """Return what a study calls a method that its definition lists."""
    return str(entry.get("as") or entry["name"])


def current(records: Sequence[TrialRecord], line: Mapping[str, Any]) -> list[TrialRecord]:
    """Return the records that belong to a study, in their order."""
    kept = {r.key for r in records if r.phase != "audit" and belongs(r, line)}
    if _planned(line, "audit"):
        confirmed: dict[str, list[str]] = defaultdict(list)
        for r in records:
            if r.key in kept and r.phase == "confirm" and r.finished:
                confirmed[_configuration(r)].append(r.key)
        groups = {name: audit_cell(keys) for name, keys in confirmed.items()}
        audits = (r for r in records if r.phase == "audit")
        kept |= {r.key for r in audits if r.cell in ("", groups.get(_configuration(r)))}
    return [r for r in records if r.key in kept]


def audit_cell(confirmed: Iterable[str]) -> str:
    """Return the key of an audit, given the keys of the confirmed trials that it compares."""
    return content_key("audit", sorted(confirmed))


def _configuration(r: TrialRecord) -> str:
    return content_key(r.forget, r.method, r.knobs)


def belongs(r: TrialRecord, line: Mapping[str, Any]) -> bool:
    """Return whether a record, other than an audit, is of a job that the study of a line may still have.

    Whether its knobs are the chosen ones is another question. A record or a line that names no keys belongs.
    """
    if not r.cell or "problems" not in line:
        return True
    if line["problems"].get(r.forget, {}).get(str(r.seed)) != r.problem:
        return False
    if r.phase == "reference":
        return line["references"].get(r.role, {}).get(str(r.seed)) == r.cell
    method = line["methods"].get(r.method)
    if (
        method is None
        or request_of(r.forget) not in method["forget"]
        or not _planned(line, r.phase)
    ):
        return False
    if r.number is not None and r.number >= method["menu" if r.phase == "menu" else "trials"]:
        return False
    transfers = [tuple(pair) for pair in line["definition"]["experiments"]["transfer"]]
    if r.source and (r.source, r.forget) not in transfers:
        return False
    return method["cells"].get(r.phase) == r.cell


def _planned(line: Mapping[str, Any], phase: str) -> float:
    """Return how many trials of a phase a study has; 1 where its line does not say."""
    return line.get("planned", {}).get(phase, {}).get("trials", 1)
