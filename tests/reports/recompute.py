"""The numbers of the tables `main`, `sufficient`, `transfer` and `robustness` once more, from ``trials.jsonl`` alone.

It imports nothing of this project and shares no code with it: ``python tests/reports/recompute.py STUDY_DIR`` prints where
the report of a finished study says something else. Intervals that the report takes from resampled seeds are resampled here
with other random numbers, so that their width may differ by ``LOOSE``.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

LOOSE = 0.12
LABELS = {
    "Test accuracy (RA)": "acc_test",
    "Forget accuracy (FA)": "acc_forget",
    "Forget accuracy (FATrain)": "acc_forget",
    "Test accuracy, retained classes (RA)": "acc_test_retain",
    "Test accuracy, forgotten class (FATest)": "acc_test_forget",
    "MIA (entropy, member rate)": "mia_lr_entropy",
    "Activation distance (AD)": "activation_distance",
}
PARTS = {"Transferred": "transfer", "Defaults": "default", "More epochs": "sufficient"}
Row = dict[str, Any]


def mean_ends(values: np.ndarray) -> tuple[float, float]:
    """Ends of Student's interval of a mean; NaN for a single value."""
    if len(values) < 2:
        return math.nan, math.nan
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / math.sqrt(len(values))
    return values.mean() - half, values.mean() + half


class Study:
    """A finished study: one run for each cell and seed."""

    def __init__(self, folder: Path):
        lines = [json.loads(line) for line in (folder / "trials.jsonl").open(encoding="utf-8")]
        self.line = [line for line in lines if line["kind"] == "study"][-1]
        definition = self.line["definition"]
        self.seeds = definition["seeds"]["report"]
        self.epochs = (definition["experiments"].get("sufficient") or {}).get("epochs")
        self.margin = definition.get("report", {}).get("margin")
        self.requests = list(self.line["requests"])
        self.runs: dict[tuple[str, ...], dict[int, Row]] = {}
        trials = [t for t in lines if t["kind"] == "trial" and t["status"] == "finished"]
        for t in sorted(trials, key=lambda t: t["ended"]):
            if t["phase"] not in ("search", "finalist") and t["role"] in ("", "report"):
                cell = (t["phase"], t["forget"], t["method"], t["source"] or "")
                self.runs.setdefault(cell, {})[t["seed"]] = t
        self._distances()
        twins = [self.runs["reference", name, "retrain", ""] for name in self.requests]
        self.further = sorted(set().union(*twins) - set(self.seeds))
        rng = np.random.default_rng(0)
        self.draws = [
            rng.multinomial(len(seeds), np.full(len(seeds), 1 / len(seeds)), size=20_000)
            if seeds
            else np.empty((20_000, 0))
            for seeds in (self.seeds, self.further)
        ]

    def _distances(self) -> None:
        """Retrained models record their distances to each other; the report takes the mean over the others."""
        for (_, _, method, _), runs in self.runs.items():
            for seed, run in runs.items() if method == "retrain" else ():
                apart = [
                    other["distances"].get(run["problem"], run["distances"].get(other["problem"]))
                    for twin, other in sorted(runs.items())
                    if twin != seed
                ]
                known = [distance for distance in apart if distance is not None]
                if known:
                    run["metrics"]["test"]["activation_distance"] = float(np.mean(known))

    def metrics(self, request: str) -> list[str]:
        whole = self.line["requests"][request]["whole_class"]
        names = (
            ["acc_test_retain", "acc_forget", "acc_test_forget"]
            if whole
            else ["acc_test", "acc_forget"]
        )
        return [*names, "mia_lr_entropy"]

    def values(self, cell: tuple[str, ...], metric: str) -> np.ndarray:
        """The metric of each run of a cell, on the test view."""
        runs = self.runs.get(cell, {})
        return np.array([runs[s]["metrics"]["test"].get(metric, math.nan) for s in sorted(runs)])

    def retrained(self, request: str, metric: str) -> np.ndarray:
        return self.values(("reference", request, "retrain", ""), metric)

    def floor(self, request: str, metric: str) -> float:
        models = self.retrained(request, metric)
        if metric == "activation_distance":
            return float(models.mean())
        others = (models.sum() - models) / (len(models) - 1)
        return float(np.abs(models - others).mean())

    def table(self, cell: tuple[str, ...], seeds: list[int]) -> np.ndarray:
        """The metrics of AvgGap of a cell [seeds, metrics], NaN where a run is missing."""
        runs, names = self.runs.get(cell, {}), self.metrics(cell[1])
        empty: Row = {"metrics": {"test": {}}}
        return np.array(
            [[runs.get(s, empty)["metrics"]["test"].get(m, math.nan) for m in names] for s in seeds]
        )

    def average(self, cell: tuple[str, ...]) -> tuple[float, np.ndarray, int]:
        """AvgGap of means, over resampled seeds, and the number of runs."""
        twin, ours = ("reference", cell[1], "retrain", ""), self.runs.get(cell, {})
        if not ours:
            return math.nan, np.full(len(self.draws[0]), math.nan), 0
        theirs = [self.retrained(cell[1], name).mean() for name in self.metrics(cell[1])]
        means = [self.values(cell, name).mean() for name in self.metrics(cell[1])]
        replicas = resampled(self.table(cell, self.seeds), self.draws[0])
        models = resampled(self.table(twin, [*self.seeds, *self.further]), np.hstack(self.draws))
        gap = float(np.abs(np.subtract(means, theirs)).mean())
        return gap, np.abs(replicas - models).mean(axis=1), min(len(ours), len(self.runs[twin]))

    def recovery(self, cell: tuple[str, ...]) -> tuple[float, np.ndarray, int]:
        """The same of recovery; NaN where there is nothing to measure."""
        gap, replicas, n = self.average(cell)
        nothing, all_nothing, m = self.average(("reference", cell[1], "original", ""))
        noise = np.mean([self.floor(cell[1], name) for name in self.metrics(cell[1])])
        if not nothing >= 3 * noise:
            return math.nan, replicas * math.nan, 0
        return 1 - gap / nothing, 1 - replicas / all_nothing, min(n, m)

    def words(self, cell: tuple[str, ...]) -> tuple[dict[str, str], str]:
        """The word for each metric of AvgGap, and for all of them."""
        apart, equal, words = [], [], {}
        for name in self.metrics(cell[1]):
            ours, theirs = self.values(cell, name), self.retrained(cell[1], name)
            if min(len(ours), len(theirs)) < 2:
                return {}, ""
            limit = self.margin / 100 if self.margin else max(2 * theirs.std(ddof=1), 0.005)
            outside, differs = tests(ours, theirs, limit)
            words[name] = word(outside, differs)
            apart.append(outside)
            equal.append(differs)
        return words, word(max(apart), len(equal) * min(equal))


def tests(ours: np.ndarray, theirs: np.ndarray, limit: float) -> tuple[float, float]:
    """p of being further apart than the limit, and of being equal, by t tests with pooled variance."""
    if np.ptp(ours) < 1e-12 and np.ptp(theirs) < 1e-12:
        distance = abs(ours.mean() - theirs.mean())
        return float(distance > limit + 1e-12), float(distance < 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of runs that hardly differ
        below = stats.ttest_ind(ours - limit, theirs, alternative="less").pvalue
        above = stats.ttest_ind(ours + limit, theirs, alternative="greater").pvalue
        return max(below, above), stats.ttest_ind(ours, theirs).pvalue


def word(outside: float, differs: float) -> str:
    return "same" if outside < 0.05 else "different" if differs < 0.05 else "undecided"


def resampled(table: np.ndarray, draws: np.ndarray) -> np.ndarray:
    """Mean of each column over the drawn rows, without those that are missing."""
    there = np.isfinite(table)
    with np.errstate(invalid="ignore"):
        return draws @ np.where(there, table, 0.0) / (draws @ there)


def estimate(value: float, replicas: np.ndarray, n: int, bounds: tuple[float, float] = (-math.inf, math.inf)) -> Row:  # fmt: skip
    """A number with the interval of its resampled seeds."""
    if not math.isfinite(value) or n < 2:
        return {"value": value}
    error = np.nanstd(replicas) * math.sqrt(n / (n - 1))
    half = stats.t.ppf(0.975, n - 1) * error
    low, high = np.clip((value - half, value + half), *bounds)
    return {"value": value, "low": low, "high": high, "loose": LOOSE * half}


def metric_cell(study: Study, cell: tuple[str, ...], metric: str) -> Row:
    """What ``main`` says of one metric of one cell."""
    ours, theirs = study.values(cell, metric), study.retrained(cell[1], metric)
    top = math.inf if metric == "activation_distance" else 1.0
    low, high = np.clip(mean_ends(ours), 0.0, top)
    row = {"value": ours.mean(), "low": low, "high": high}
    if len(ours) > 1:
        row["std"] = ours.std(ddof=1)
    if metric == "activation_distance" or cell[2] == "retrain":
        return row
    row |= {"gap": abs(ours.mean() - theirs.mean()), "verdict": study.words(cell)[0].get(metric)}
    if min(len(ours), len(theirs)) > 1:
        free = len(ours) + len(theirs) - 2
        pooled = (ours.var() * len(ours) + theirs.var() * len(theirs)) / free
        half = stats.t.ppf(0.975, free) * math.sqrt(pooled * (1 / len(ours) + 1 / len(theirs)))
        ends = ours.mean() - theirs.mean() - half, ours.mean() - theirs.mean() + half
        small, large = sorted(map(abs, ends))
        row |= {"gap_low": 0.0 if ends[0] < 0 < ends[1] else small, "gap_high": large}
    return row


def gap_cell(study: Study, cell: tuple[str, ...]) -> Row:
    return {**estimate(*study.average(cell), (0.0, 1.0)), "verdict": study.words(cell)[1]}


def compared_cell(study: Study, phase: str, row: Row) -> Row | None:
    """What a row of ``main`` or ``sufficient`` should say; None of a cell that holds nothing."""
    request, label, method = row["Forget request"], row["Metric"], row["Method"]
    role = {"Original": "original", "Retrain": "retrain"}.get(method)
    cell = ("reference", request, role, "") if role else (phase, request, method, "")
    names = study.metrics(request)
    if label in LABELS:
        if method == "Noise floor":
            return {"value": study.floor(request, LABELS[label])}
        return metric_cell(study, cell, LABELS[label])
    noise = float(np.mean([study.floor(request, name) for name in names]))
    if label == "Recovery" and role == "retrain":
        nothing = study.average(("reference", request, "original", ""))[0]
        return {"value": 1 - noise / nothing if nothing >= 3 * noise else math.nan}
    if label.startswith("AvgGap") and method == "Noise floor":
        return {"value": noise}
    if method in ("Retrain", "Noise floor"):
        return None
    if label == "Recovery":
        return estimate(*study.recovery(cell))
    if label == "AvgGap (per run)":
        theirs = [study.retrained(request, name).mean() for name in names]
        runs = np.abs(study.table(cell, sorted(study.runs[cell])) - theirs).mean(axis=1)
        low, high = np.clip(mean_ends(runs), 0.0, 1.0)
        std = {"std": runs.std(ddof=1)} if len(runs) > 1 else {}
        return {"value": runs.mean(), "low": low, "high": high, **std}
    if label.startswith("AvgGap"):
        return gap_cell(study, ("default", *cell[1:]) if "default" in label else cell)
    longer, tuned = study.average(cell), study.average(("confirm", *cell[1:]))
    return estimate(longer[0] - tuned[0], longer[1] - tuned[1], min(longer[2], tuned[2]))


def transfer_cell(study: Study, row: Row) -> Row | None:
    """What a row of ``transfer`` should say."""
    (source, request), label, method = row["Transfer"].split(" → "), row["Metric"], row["Method"]
    own, moved = ("confirm", request, method, ""), ("transfer", request, method, source)
    changes = {
        name: abs(study.values(moved, name).mean() - study.values(own, name).mean())
        for name in (study.metrics(request) if method not in ("Retrain", "Noise floor") else ())
    }
    if label in LABELS:
        name = LABELS[label]
        if method == "Retrain":
            return {"value": study.retrained(request, name).mean()}
        if method == "Noise floor":
            return {"value": study.floor(request, name)}
        cell = metric_cell(study, moved, name)
        return {part: cell[part] for part in ("value", "low", "high")} | {"gap": changes[name]}
    if method in ("Retrain", "Noise floor"):
        asked = {"Forget request": request, "Metric": label, "Method": method}
        return None if label == "AvgChange" else compared_cell(study, "confirm", asked)
    if label == "AvgChange":
        return {"value": float(np.mean(list(changes.values())))}
    if label == "Recovery":
        return estimate(*study.recovery(moved))
    return gap_cell(study, own if "own" in label else moved)


def robustness_row(study: Study, method: str) -> dict[str, Row]:
    """What the row of a method in ``robustness`` should say, by column."""
    if method.startswith("original"):
        return {}
    kinds = {name: study.line["requests"][name]["kind"] for name in study.requests}
    shares: dict[str, list[tuple[float, np.ndarray, int]]] = {
        head: [] for head in (*PARTS, "Tuned")
    }
    regrets = []
    for cell in study.runs:
        phase, request, name, source = cell
        head = {v: k for k, v in PARTS.items()} | {"confirm": "Tuned"}
        alike = not source or kinds[source] == kinds[request]
        share = study.recovery(cell)
        if name != method or phase not in head or not alike or not math.isfinite(share[0]):
            continue
        shares[head[phase]].append(share)
        if phase != "confirm":
            after, before = study.average(cell), study.average(("confirm", request, name, ""))
            regrets.append((after[0] - before[0], after[1] - before[1], min(after[2], before[2])))
    means = {head: mean(each) for head, each in shares.items() if each}
    total = mean([means[head] for head in PARTS if head in means])
    found = {head: estimate(*each) for head, each in means.items()}
    found["Untuned recovery [95 % interval]"] = estimate(*total)
    found["Mean regret"] = estimate(*mean(regrets))
    found["Largest regret"] = {"value": max((each[0] for each in regrets), default=math.nan)}
    return found


def mean(each: list[tuple[float, np.ndarray, int]]) -> tuple[float, np.ndarray, int]:
    if not each:
        return math.nan, np.array([]), 0
    values, replicas, counts = zip(*each)
    return float(np.mean(values)), np.mean(replicas, axis=0), min(counts)


def differences(where: str, row: Row, expected: Row) -> list[str]:
    """Where the numbers of a row of a CSV file are others than expected."""
    found = []
    for part in ("value", "std", "low", "high", "gap", "gap_low", "gap_high"):
        wanted, printed = expected.get(part, math.nan), row.get(part, math.nan)
        loose = expected.get("loose", 0.0) if part in ("low", "high") else 0.0
        if pd.isna(wanted) and pd.isna(printed):
            continue
        if pd.isna(wanted) or pd.isna(printed) or abs(wanted - printed) > 1e-9 + loose:
            found.append(f"{where} {part}: the table has {printed}, expected is {wanted}")
    if "verdict" in expected and (row["verdict"] if pd.notna(row["verdict"]) else "") != (expected["verdict"] or ""):  # fmt: skip
        found.append(f"{where}: the table says {row['verdict']}, expected is {expected['verdict']}")
    return found


def check(folder: Path, tables: Path) -> tuple[int, list[str]]:
    """Compare the tables of a report with ``trials.jsonl``: how many numbers were looked at, and what differs."""
    study, found, numbers = Study(folder), [], 0
    for name, phase in (
        ("main", "confirm"),
        ("sufficient", "sufficient"),
        ("transfer", "transfer"),
    ):
        path = tables / f"{name}.csv"
        for row in pd.read_csv(path).to_dict("records") if path.is_file() else ():
            numbers += sum(isinstance(v, float) and math.isfinite(v) for v in row.values())
            missing = pd.isna(row["value"])
            make = transfer_cell(study, row) if name == "transfer" else None
            if name != "transfer" and not (missing and pd.notna(row["note"])):
                make = compared_cell(study, phase, row)
            where = f"{name}: {' / '.join(map(str, list(row.values())[:3]))}"
            found += differences(where, row, make or {})
    path = tables / "robustness.csv"
    for row in pd.read_csv(path).to_dict("records") if path.is_file() else ():
        for head, expected in robustness_row(study, row["Method"]).items():
            cell = {
                "value": row[head],
                "low": row.get(f"{head} low"),
                "high": row.get(f"{head} high"),
            }
            numbers += sum(pd.notna(v) for v in cell.values())
            found += differences(f"robustness: {row['Method']} / {head}", cell, expected)
    return numbers, found


if __name__ == "__main__":
    looked, wrong = check(Path(sys.argv[1]), Path(sys.argv[1]) / "report" / "tables")
    print(f"{looked} numbers, {len(wrong)} differ", *wrong, sep="\n")
    sys.exit(bool(wrong))
