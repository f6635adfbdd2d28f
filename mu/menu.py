"""What the records of a menu show to a rule: the same knobs on a request, on its stand-ins, on other requests. Needs no torch.

A rule sees one seed and the `val` view: the trials of that seed, its original, and what stands in for its retrained model.
Its choice is judged on the `test` view of the other seeds, which it does not see.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from mu.problem_names import COSTS, stand_in_name
from mu.record import TrialRecord
from mu.relative import mean_of
from mu.rules import COMPARED
from mu.selection import COSTS as TRIAL_COSTS
from mu.selection import Candidate, References, Values

VIEW, JUDGED = "val", "test"
"""The view that rules see, and the one on which their choices are judged."""
MENU = "menu"
"""The phase."""


@dataclass(frozen=True)
class MenuRecords:
    """The records of a study's menus and references, by where they were made.

    Args:
        trials: Problem's name, method and seed to number to finished trial.
        references: Problem's name, `original` or `retrain`, to seed to finished record of a report seed.
        whole_class: Request to whether a whole class goes.
    """

    trials: Mapping[tuple[str, str, int], Mapping[int, TrialRecord]]
    references: Mapping[tuple[str, str], Mapping[int, TrialRecord]]
    whole_class: Mapping[str, bool] = field(default_factory=dict)

    def situation(
        self, forget: str, method: str, seed: int, source: str | None = None
    ) -> tuple[list[Candidate], References]:
        """Return the candidates of a cell on a seed, and what is known of its references.

        Args:
            source: The request from which knobs are transferred, which has one retrained model; None hides all others.
        """
        names = {kind: stand_in_name(forget, kind) for kind in COSTS}
        if source is not None:
            names["transfer"] = source
        elsewhere = {
            name: {
                _text(r.knobs): _seen(r) for r in self.trials.get((at, method, seed), {}).values()
            }
            for name, at in names.items()
        }
        tried = [
            Candidate(
                number,
                dict(record.knobs),
                float("nan"),
                _seen(record),
                {name: getattr(record, name) for name in TRIAL_COSTS},
                record.origin,
                {
                    name: there[_text(record.knobs)]
                    for name, there in elsewhere.items()
                    if _text(record.knobs) in there
                },
            )
            for number, record in sorted(self.trials.get((forget, method, seed), {}).items())
        ]
        known = self._known(forget, seed)
        on = {name: self._known(at, seed) for name, at in names.items()}
        if source is not None:
            on["transfer"] = replace(on["transfer"], retrain=on["transfer"].one)
        return tried, References(known.original, known.retrain, known.one, on, known.whole_class)

    def _known(self, name: str, seed: int) -> References:
        """Return the references of a problem on a seed; those of a stand-in are of this seed alone."""
        original = self.references.get((name, "original"), {})
        retrained = self.references.get((name, "retrain"), {})
        one = _seen(retrained[seed]) if seed in retrained else {}
        own = name in self.whole_class
        every = mean_of([_seen(record) for record in retrained.values()]) if own else one
        return References(
            _seen(original[seed]) if seed in original else {},
            every,
            one,
            whole_class=self.whole_class.get(name, False),
        )

    def seeds(self, forget: str, method: str) -> list[int]:
        """Return the seeds on which a cell's menu was tried."""
        return sorted(seed for at, of, seed in self.trials if (at, of) == (forget, method))


def menu_records(records: Iterable[TrialRecord], whole_class: Mapping[str, bool]) -> MenuRecords:
    """Sort the finished records of menus and references.

    Args:
        whole_class: Each request of the study to whether a whole class goes.
    """
    trials: dict[tuple[str, str, int], dict[int, TrialRecord]] = defaultdict(dict)
    references: dict[tuple[str, str], dict[int, TrialRecord]] = defaultdict(dict)
    for record in records:
        if not record.finished:
            continue
        if record.phase == MENU and record.number is not None:
            trials[record.forget, record.method, record.seed][record.number] = record
        elif record.phase == "reference" and record.role == "report":
            references[record.forget, record.method][record.seed] = record
    return MenuRecords(dict(trials), dict(references), dict(whole_class))


def _seen(record: TrialRecord) -> dict[str, float]:
    """Return the metrics of a record that a rule may see: none that compares with a retrained model."""
    values: Values = record.metrics.get(VIEW, {})
    return {name: value for name, value in values.items() if name not in COMPARED}


def _text(knobs: Mapping[str, Any]) -> str:
    return repr(sorted(knobs.items()))
