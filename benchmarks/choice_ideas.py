"""Two ideas for choosing knobs without a retrained model, on finished studies with a menu; docs/results/choice.md has the table.

*Matched*: what the original does on the held-out samples that are as hard as those of D_f for a cheap retrained model is
expected of a retrained model on D_f. *Fitted*: a model of the regret over all that rules may see, fitted to other requests.

    python benchmarks/choice_ideas.py STUDY_DIR=STORAGE...
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import RidgeCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from mu.evaluate import outputs
from mu.menu import VIEW, menu_records
from mu.metrics.attacks import fit_logistic
from mu.problem import Problem, Role
from mu.problem_names import stand_in_name
from mu.rules import RULE, average_gap, eligible, scores
from reports import load
from reports.analysis import regret
from reports.statistics.intervals import nested_mean
from sweeps import preflight
from sweeps.api import load_study
from sweeps.flow.references import without_facts
from sweeps.flow.splits import resolve_ranked_requests
from sweeps.plan import Plan
from sweeps.state.store import Store

NEAREST = 5
"""Held-out samples that stand for one of D_f."""
FREE = ("held_out", "losses", "attack", "rf_jsd", "expected", "expected_original")
PAID = {
    "no retraining": (),
    "twin": ("twin",),
    "epochs": ("expected_epochs", "proxy_epochs"),
    "data": ("expected_data", "proxy_data"),
}
"""What a fitted model may see to the rules whose orders it sees beside those that cost nothing; it is compared with the first
of them, or with the best that costs nothing."""
RULES = (*FREE, *(name for names in PAID.values() for name in names), "oracle_one")
SEEN = (
    *("acc_retain", "acc_forget", "acc_test", "mia_lr_entropy", "mia_lr_entropy_held_out"),
    *("mia_lr_entropy_retain", "mia_population_auc", "mia_lr_entropy_auc", "loss_ks", "rf_jsd"),
    *("streisand_tv", "zrf", "wrong_class_rate"),
)
"""Metrics of the view that rules read."""
CELL = ["study", "forget", "method", "seed"]
Row = dict[str, Any]


def targets(plan: Plan, store: Store, forget: str, seed: int) -> Iterator[tuple[str, Row]]:
    """Yield each way of matching, by name, with the metrics on D_f that it expects of a retrained model."""
    problem = plan.problem(forget, seed)
    split = problem.split().parts
    held_out = {"val": problem.held_out(VIEW)[0], "twin": plan.data.parts["twin"].examples("cpu")}

    def network(of: Problem, role: Role) -> nn.Module:
        weights = store.get(of.reference_key(role))
        assert weights is not None, f"the storage lacks the {role} model of {forget}, seed {seed}"
        return of.load(without_facts(weights))

    original = network(problem, "original")
    cheap = {
        kind: network(plan.problem(stand_in_name(forget, kind), seed), "retrain")
        for kind in ("epochs", "data")
    }
    retained = outputs(original, split["retain"])
    attack = fit_logistic(retained.entropies, outputs(original, held_out["val"]).entropies)
    for pool, samples in held_out.items():
        own = outputs(original, samples)
        right, called = own.logits.argmax(1) == own.labels, attack.members(own.entropies)
        for kind, judge in {"original": original, **cheap}.items():
            forgotten = outputs(judge, split["forget"])
            distance = np.abs(forgotten.losses[:, None] - outputs(judge, samples).losses)
            for among in ("any class", "the same class"):
                if among == "the same class":
                    distance[forgotten.labels[:, None] != own.labels] = np.inf
                near = np.argsort(distance, axis=1, kind="stable")[:, :NEAREST]
                expected = {"acc_forget": right[near].mean(), "mia_lr_entropy": called[near].mean()}
                yield f"matched by {kind}, {pool}, {among}", expected


def candidates(folder: Path, storage: str) -> pd.DataFrame:
    """Return a row for each configuration of a menu on each seed: AvgGap above the best, and what chooses.

    Columns:
        study, forget, method, seed: Where it ran.
        points, noise: AvgGap above the best of the menu and its noise floor, points.
        rule NAME, matched NAME: What it makes least.
        seen NAME: What else a rule without a retrained model may see: each metric less the original's, that one's own, and
            how accuracies changed over the last epoch.
    """
    study, written = load.read(folder), folder / "study.yaml"
    wanted = load_study(written)
    plan, store = Plan(wanted, preflight.load_data(wanted, str(written))), Store(storage)
    resolve_ranked_requests(plan, store, lambda ranking: None)
    recorded = menu_records(study.records, {r.name: r.whole_class for r in study.requests})
    rows: list[Row] = []
    for request in study.requests:
        ways = {seed: dict(targets(plan, store, request.name, seed)) for seed in study.report_seeds}
        for method in study.methods:
            for seed in recorded.seeds(request.name, method.name):
                cell = (request.name, method.name, seed)
                truth = regret.judged(recorded, *cell)
                assert truth is not None, f"{cell} cannot be judged"
                tried, known = recorded.situation(*cell)
                tried = [one for one in tried if one.number in truth.gaps]
                tried = eligible(tried, known, study.max_utility_loss or 1.0)
                orders = {name: scores(RULE[name], tried, known) for name in RULES}
                for one in tried:
                    row: Row = dict(zip(CELL, (study.name, *cell), strict=True))
                    row["points"] = 100 * (truth.gaps[one.number] - truth.best)
                    row["noise"] = 100 * truth.noise
                    for name, order in orders.items():
                        row[f"rule {name}"] = order[one.number][0]
                    for name, expected in ways[seed].items():
                        row[name] = average_gap(one.metrics, {**known.original, **expected})
                    before, last = recorded.trials[cell][one.number].curve[-2:]
                    for name in SEEN:
                        row[f"seen {name}"] = one.metrics[name] - known.original[name]
                        row[f"seen {name} of the original"] = known.original[name]
                    for name in SEEN[:3]:
                        row[f"seen change of {name}"] = last[name] - before[name]
                    rows.append(row)
    return pd.DataFrame(rows)


def fitted(rows: pd.DataFrame, paid: tuple[str, ...], left_out: pd.Series) -> pd.DataFrame:
    """Return the regret that models predict, each group of `left_out` by models fitted to the others."""
    rules = [f"rule {name}" for name in (*FREE, *paid)]
    ranks = rows.groupby(CELL)[rules].rank(pct=True).add_prefix("rank of ")
    seen = rows[[*rules, *(name for name in rows if str(name).startswith("seen "))]]
    inputs = pd.concat([seen, ranks, pd.get_dummies(rows["method"])], axis=1).to_numpy(float)
    models = {
        "ridge": make_pipeline(StandardScaler(), RidgeCV(np.logspace(-1, 4, 11))),
        "trees": HistGradientBoostingRegressor(random_state=0),
    }
    found = pd.DataFrame(np.nan, rows.index, list(models))
    for group in left_out.unique():
        out = (left_out == group).to_numpy()
        for name, model in models.items():
            model.fit(inputs[~out], rows["points"][~out])
            found.loc[out, name] = model.predict(inputs[out])
    return found


def chosen(rows: pd.DataFrame, cost: pd.Series) -> pd.DataFrame:
    """Return the mean regret and noise floor, by cell, of the configurations with the least cost."""
    best = rows[cost == cost.groupby([rows[name] for name in CELL]).transform("min")]
    cells = best.groupby(CELL)[["points", "noise"]].mean()
    return cells.groupby(level=CELL[:3], sort=False).mean()


def line(name: str, found: pd.DataFrame, than: pd.DataFrame) -> str:
    """Return the row of the table of one way to choose, compared with another."""
    points = found["points"]
    kinds = points.index.get_level_values("forget")
    groups = kinds.where(~kinds.str.startswith("random"), "random")
    parts = [
        f"{points[groups == group].mean():.1f}"
        for group in sorted(set(groups), key=lambda group: (group != "random", group))
    ]
    pairs = (points - than["points"]).groupby(level=["study", "forget"])
    less = nested_mean({str(pair): list(values) for pair, values in pairs})
    assert less is not None and less.interval is not None
    low, high = less.interval
    near = (points <= found["noise"]).mean()
    difference = f"{less.value:+.1f} ({low:+.1f} to {high:+.1f})"
    return f"| {' | '.join([name, f'{points.mean():.1f}', *parts, f'{near:.0%}', difference])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("studies", nargs="+", metavar="STUDY_DIR=STORAGE")
    named = [one.split("=", 1) for one in parser.parse_args().studies]
    rows = pd.concat([candidates(Path(f), s) for f, s in named], ignore_index=True)
    rules = {name: chosen(rows, rows[f"rule {name}"]) for name in RULES}
    print("points: all, then random requests, then the others by name")
    for name, found in rules.items():
        print(line(name, found, rules["expected_original"]), "than expected_original")
    for way in (str(name) for name in rows if str(name).startswith("matched ")):
        than = f"expected_{way.split()[2].rstrip(',')}"
        print(line(way, chosen(rows, rows[way]), rules[than]), f"than {than}")
    pair = rows["study"] + "/" + rows["forget"]
    for out, groups in {"pair": pair, "request": rows["forget"], "study": rows["study"]}.items():
        for sees, paid in PAID.items():
            than = paid[0] if paid else "expected_original"
            for name, cost in fitted(rows, paid, groups).items():
                label = f"{name}, {sees}, without the {out}"
                print(line(label, chosen(rows, cost), rules[than]), f"than {than}", flush=True)


if __name__ == "__main__":
    main()
