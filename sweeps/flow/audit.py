"""The audit: the confirmed models of every cell are attacked together, and each seed gets a record of it."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from mu.current import audit_cell
from mu.evaluate import population_of
from mu.keys import content_key
from mu.metrics import audits
from mu.record import TrialRecord
from mu.relative import mean_of
from sweeps.flow.ledger import Ledger
from sweeps.flow.references import References
from sweeps.flow.shadow_attacks import Answers, Targets, audit
from sweeps.phases import Cell, Knobs
from sweeps.plan import Plan
from sweeps.state.store import Store


def audit_cells(
    plan: Plan, references: References, ledger: Ledger, store: Store, best: Mapping[Cell, Knobs]
) -> None:
    """Attack the confirmed models of every cell with those of its other seeds, and record one audit a seed."""
    records = ledger.results.records
    for (forget, method), confirmed in _confirmed(plan, records, best).items():
        if len(confirmed) < plan.study.audit.models:
            ledger.progress.say(
                f"audit of {forget} {method}: {len(confirmed)} confirmed trials have finished, "
                f"{plan.study.audit.models} are needed"
            )
    for confirmed in audits_left(plan, records, best):
        _audit_cell(plan, references, ledger, store, confirmed)


def audits_left(
    plan: Plan, records: Mapping[str, TrialRecord], best: Mapping[Cell, Knobs]
) -> list[dict[int, TrialRecord]]:
    """Return the confirmed trials, by seed, of every cell that has enough of them and whose audit is not recorded."""
    left = []
    for confirmed in _confirmed(plan, records, best).values():
        if len(confirmed) < plan.study.audit.models:
            continue
        audited = audit_cell(record.key for record in confirmed.values())
        if not all(_audit_key(record, audited) in records for record in confirmed.values()):
            left.append(confirmed)
    return left


def _confirmed(
    plan: Plan, records: Mapping[str, TrialRecord], best: Mapping[Cell, Knobs]
) -> dict[Cell, dict[int, TrialRecord]]:
    """Return the confirmed trials that have finished of every cell with chosen knobs, by seed; none without an audit."""
    confirmed: dict[Cell, dict[int, TrialRecord]] = {}
    for cell in plan.cells if plan.study.audit.models else ():
        if cell in best:
            confirmed[cell] = {
                record.seed: record
                for record in records.values()
                if (record.phase, record.forget, record.method) == ("confirm", *cell)
                and record.finished
                and record.knobs == best[cell]
            }
    return confirmed


def _audit_key(confirmed: TrialRecord, cell: str) -> str:
    return content_key(confirmed.key, cell)


def _audit_cell(
    plan: Plan,
    references: References,
    ledger: Ledger,
    store: Store,
    confirmed: Mapping[int, TrialRecord],
) -> None:
    """Audit one cell, if the outputs of enough of its models were kept."""
    one = next(iter(confirmed.values()))
    unlearned: dict[int, Answers] = {}
    retrained: dict[int, Answers] = {}
    for seed, record in confirmed.items():
        ours = store.get(record.key)
        theirs = references.scores((one.forget, seed))["retrain"]
        if ours is not None and theirs.held_out is not None:
            unlearned[seed] = Answers(**ours)
            retrained[seed] = Answers(theirs.forget.logits, theirs.held_out)
    if len(unlearned) < plan.study.audit.models:
        ledger.progress.say(
            f"audit of {one.forget} {one.method}: outputs of {len(unlearned)} models were kept, "
            f"{plan.study.audit.models} are needed"
        )
        return
    problem = plan.problem(one.forget, next(iter(unlearned)))
    test_labels = problem.data.parts["test"].labels
    targets = Targets(
        problem.data.parts["train"].labels[problem.forget_index],
        test_labels,
        population_of(test_labels),
    )
    cell = audit_cell(record.key for record in confirmed.values())
    utility = _utility(plan, ledger, [confirmed[seed] for seed in unlearned])
    for seed, values in audit(unlearned, retrained, targets, utility).items():
        now = time.time()
        ledger.record_other(
            replace(
                confirmed[seed],
                key=_audit_key(confirmed[seed], cell),
                cell=cell,
                phase="audit",
                metrics={"test": values},
                unavailable={},
                confusions={},
                curve=[],
                time_total=0.0,
                started=now,
                ended=now,
            )
        )


def _utility(plan: Plan, ledger: Ledger, confirmed: Sequence[TrialRecord]) -> float:
    """Accuracy kept on D_r and on test samples, relative to the retrained models of the same seeds."""
    retrained = [
        ledger.results.records[plan.reference_key(record.forget, record.seed, "retrain", "report")]
        for record in confirmed
    ]
    ours, theirs = (
        mean_of([record.metrics["test"] for record in side]) for side in (confirmed, retrained)
    )
    retain, test = ((ours[name], theirs[name]) for name in ("acc_retain", "acc_test"))
    return audits.utility_ratio(retain, test)
