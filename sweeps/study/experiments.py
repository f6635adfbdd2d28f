"""What a study asks beyond the search: experiments with the tuned knobs, costly metrics, and an audit."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from mu.evaluate import COSTLY
from sweeps.errors import StudyError
from sweeps.study.fields import build, known, one_of, plain

COSTLY_PHASES = ("search", "default", "confirm", "sufficient", "transfer")


@dataclass(frozen=True)
class Experiments:
    """What is tried with the tuned knobs, beyond confirming them.

    Args:
        sufficient: Number of epochs of the sufficient-training experiment; None leaves it out.
        transfer: Pairs (source, target) of forget requests: knobs tuned on the one, used on the other.
        defaults: Whether the authors' knobs (or those the study fixes) are run beside the tuned ones.
    """

    sufficient: int | None = None
    transfer: tuple[tuple[str, str], ...] = ()
    defaults: bool = True


@dataclass(frozen=True)
class Metrics:
    """What is computed beyond the metrics that every trial has.

    Args:
        costly: Phases whose trials also get the costly attacks and the diagnostics of a method's own work;
            references get the attacks whenever any phase does.
        attacks: Which attacks, of ``mu.evaluate.COSTLY``.
    """

    costly: tuple[str, ...] = ("confirm",)
    attacks: tuple[str, ...] = ("svc", "starting_kit")


@dataclass(frozen=True)
class Audit:
    """Attacks that need many models (U-LiRA, RMIA, the challenge's F-score), on confirmed knobs.

    Args:
        models: Least number of report seeds, K; 0 leaves the audit out. U-LiRA needs 9: 8 besides the attacked.
    """

    models: int = 0


def parse_experiments(raw: Any, requests: Collection[str], where: str) -> Experiments:
    """What is tried with the tuned knobs on these requests. Raises StudyError."""
    if not isinstance(raw, dict):
        raise StudyError(f"{where}: must be a mapping, but got {raw!r}")
    known(raw, ("sufficient", "transfer", "defaults"), where)
    epochs = None
    if raw.get("sufficient") is not None:
        sufficient = raw["sufficient"]
        epochs = sufficient.get("epochs") if isinstance(sufficient, dict) else sufficient
        if type(epochs) is not int or epochs < 1:
            raise StudyError(
                f"{where}: sufficient: must be {{epochs: n}} with n at least 1, but got {sufficient!r}"
            )
    pairs = raw.get("transfer") or []
    if pairs == "all":
        pairs = [[s, t] for s in requests for t in requests if s != t]
    if not isinstance(pairs, list):
        raise StudyError(f"{where}: transfer: must be `all` or a list of [source, target]")
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise StudyError(f"{where}: transfer: must hold [source, target], but got {pair!r}")
        for name in pair:
            if name not in requests:
                raise StudyError(
                    f"{where}: transfer: unknown request {name!r}; there are {', '.join(requests)}"
                )
        if pair[0] == pair[1]:
            raise StudyError(f"{where}: transfer: source and target are both {pair[0]!r}")
    defaults = raw.get("defaults", True)
    if not isinstance(defaults, bool):
        raise StudyError(f"{where}: defaults: must be true or false, but got {defaults!r}")
    transfer = tuple((str(source), str(target)) for source, target in pairs)
    return Experiments(epochs, transfer, defaults)


def plain_experiments(experiments: Experiments) -> dict[str, Any]:
    """As it is written in a study file."""
    epochs = experiments.sufficient
    return {
        "sufficient": {"epochs": epochs} if epochs else None,
        "transfer": plain(experiments.transfer),
        "defaults": experiments.defaults,
    }


def parse_metrics(raw: Any, where: str) -> Metrics:
    """What is computed beyond what every trial has. Raises StudyError."""
    found = build(Metrics, raw, where)
    for phase in found.costly:
        one_of(phase, COSTLY_PHASES, f"{where}: costly", "hold some of")
    for group in found.attacks:
        one_of(group, COSTLY, f"{where}: attacks", "hold some of")
    return found


def parse_audit(raw: Any, report_seeds: Sequence[int], where: str) -> Audit:
    """Whether there is an audit over these seeds. Raises StudyError."""
    audit = build(Audit, raw, where)
    if audit.models and not 2 <= audit.models <= len(report_seeds):
        raise StudyError(
            f"{where}: models must be 0, or in [2, {len(report_seeds)}] (the report seeds), "
            f"but got {audit.models}"
        )
    return audit
