"""What a finished study with a menu says of the rules: a summary as CSV, the success criteria of docs/results/choice.md, and
the reliability that ``musweep choose`` reads.

    python benchmarks/choice.py results/choice_cifar10 results/choice_cifar10_vgg --csv docs/results
    python benchmarks/choice.py results/choice_cifar10 results/choice_cifar10_vgg --reliability sweeps/study/reliability.json
"""

from __future__ import annotations

import argparse
import csv
import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu.rules import EVERYTHING, MENU_RULES, RULE
from reports import load
from reports.analysis import regret
from reports.charts.choice import group_of
from reports.load import RecordedStudy

SHARES = {"random": 0.10, "others": 0.25}
"""Group of requests to the largest median regret, as a share of (median - best)."""
NEAR, COST = 0.80, 0.2
"""Least share of cells within a noise floor of the best; most retrainings beyond the menu."""
BASES = ("defaults", "held_out")
"""Rules that must be worse."""


@dataclass(frozen=True)
class Check:
    """One rule, or one for random requests and another for the others, against the criteria.

    Args:
        name: Of the rule or rules.
        shares: Group of requests to the median share of its cells; what has no cell is left out.
        near: Share of cells whose mean regret is at most a noise floor.
        cost: Retrainings beyond the menu.
        below: Rule of ``BASES`` to its regret minus this one's, in points, and the lower end of the 95 % interval.
    """

    name: str
    shares: dict[str, float]
    near: float
    cost: float
    below: dict[str, tuple[float, float]]

    @property
    def fails(self) -> list[str]:
        """What it does not reach."""
        missed = [
            kind for kind, most in SHARES.items() if not self.shares.get(kind, float("nan")) <= most
        ]
        missed += ["near"] if not self.near >= NEAR else []
        missed += ["cost"] if not self.cost <= COST else []
        return missed + [f"below {base}" for base, (_, low) in self.below.items() if not low > 0]


def check(study: RecordedStudy, random: str, others: str) -> Check | None:
    """Return how a rule for random requests and one for the others do; None where either has chosen nowhere."""
    kinds = {request.name: group_of(request) for request in study.requests}
    wanted = {"random": random, "others": others}
    every = regret.cells(study)
    every = every.assign(kind=every["forget"].map(kinds))
    every = every[every["kind"].isin(list(wanted))]
    found = every[every["rule"] == every["kind"].map(wanted)]
    if set(found["kind"]) != set(every["kind"]) or found.empty:
        return None
    shares = regret.by_cell(found, "share")
    noise = regret.by_cell(found, "noise").tolist()
    below = {}
    for base in BASES:
        less = regret.mean_regret(found, minus=every[every["rule"] == base])
        if less is not None and less.interval is not None:
            below[base] = (-100 * less.value, -100 * less.interval.high)
    return Check(
        random if random == others else f"{random} / {others}",
        {
            kind: statistics.median(
                value for (forget, _), value in shares.items() if kinds[forget] == kind
            )
            for kind in wanted
            if any(kinds[forget] == kind for forget, _ in shares.index)
        },
        statistics.fmean(value <= 1 for value in noise) if noise else float("nan"),
        max(regret.retrainings(study, RULE[name]) for name in (random, others)),
        below,
    )


def checks(study: RecordedStudy) -> list[Check]:
    """Return the checks of every rule that is no oracle, then of every pair of two."""
    names = [rule.name for rule in MENU_RULES if not rule.oracle and rule.name not in EVERYTHING]
    pairs = [(name, name) for name in names] + [(a, b) for a in names for b in names if a != b]
    return [found for pair in pairs if (found := check(study, *pair)) is not None]


def reliability(studies: Sequence[RecordedStudy]) -> dict[str, Any]:
    """Return the content of ``sweeps/study/reliability.json``: of each rule that puts configurations in an order, over all cells."""
    rules: dict[str, Any] = {}
    for rule in MENU_RULES:
        if rule.oracle or not rule.ranks:
            continue
        for kind, whole in (("samples", False), ("classes", True)):
            points, shares = [], []
            for study in studies:
                asked = {request.name for request in study.requests if request.whole_class is whole}
                found = regret.cells(study)
                found = found[(found["rule"] == rule.name) & found["forget"].isin(asked)]
                points += regret.by_cell(found, "points").tolist()
                shares += regret.by_cell(found, "share").tolist()
            if points and shares:
                rules.setdefault(rule.name, {})[kind] = {
                    "cells": len(points),
                    "regret": round(100 * statistics.fmean(points), 2),
                    "share": round(statistics.median(shares), 3),
                }
    return {"rules": rules, "from": ", ".join(study.name for study in studies)}


def write_csv(path: Path, study: RecordedStudy) -> None:
    """Write a row for each rule in each cell: means over the seeds on which it chose; AvgGap as a fraction."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(["rule", "request", "method", "seeds", "retrainings", *regret.NUMBERS])
        seeds = regret.regrets(study).groupby(["rule", "forget", "method"])["seed"].nunique()
        for rule, found in regret.by_rule(regret.cells(study)).items():
            means = {number: regret.by_cell(found, number) for number in regret.NUMBERS}
            for cell in means["points"].index:
                values = [means[number].get(cell) for number in regret.NUMBERS]
                rounded = ["" if value is None else f"{value:.5g}" for value in values]
                writer.writerow(
                    [
                        rule.name,
                        *cell,
                        seeds[rule.name, *cell],
                        f"{regret.retrainings(study, rule):.3g}",
                        *rounded,
                    ]
                )


def print_checks(study: RecordedStudy, found: Iterable[Check]) -> list[str]:
    """Print every rule with its numbers, and the pairs that pass; return the names of what passes."""
    found = list(found)
    print(f"\n{study.name}\n")
    print("| rule | random | others | near | cost | below defaults | below held_out | fails |")
    print("| --- " * 8 + "|")
    for one in found:
        if " / " in one.name and one.fails:
            continue
        shares = [f"{one.shares[kind]:.0%}" if kind in one.shares else "-" for kind in SHARES]
        below = [
            f"{one.below[base][0]:+.2f} (from {one.below[base][1]:+.2f})"
            if base in one.below
            else "-"
            for base in BASES
        ]
        cells = [one.name, *shares, f"{one.near:.0%}", f"{one.cost:.2g}", *below]
        print(f"| {' | '.join(cells)} | {', '.join(one.fails) or '**passes**'} |")
    return [one.name for one in found if not one.fails]


def print_regrets(study: RecordedStudy) -> None:
    """Print the mean regret of every rule, in points, with the median share of (median - best) in brackets, in percent."""
    random = [request.name for request in study.requests if group_of(request) == "random"]
    others = [request.name for request in study.requests if request.name not in random]
    columns = {"random requests": random, **{f"`{name}`": [name] for name in others}}
    print("\n| rule | retrainings |", " | ".join(columns), "| all | near | tau on these |")
    print("|---" * (len(columns) + 5) + "|")
    for rule, found in regret.by_rule(regret.cells(study)).items():
        points, shares, tau = (regret.by_cell(found, name) for name in ("points", "share", "tau"))
        near = statistics.fmean(value <= 1 for value in regret.by_cell(found, "noise"))
        cells = [f"`{rule.name}`", f"{regret.retrainings(study, rule):.2g}"]
        for requests in columns.values():
            lost = statistics.fmean(value for cell, value in points.items() if cell[0] in requests)
            share = statistics.median(
                value for cell, value in shares.items() if cell[0] in requests
            )
            cells.append(f"{100 * lost:.1f} ({100 * share:.0f})")
        ordered = [[v for cell, v in tau.items() if cell[0] in names] for names in columns.values()]
        taus = [f"{statistics.fmean(each):.2f}" for each in ordered if each]
        cells += [f"{100 * statistics.fmean(points):.1f}", f"{near:.0%}", ", ".join(taus)]
        print(f"| {' | '.join(cells)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=Path, metavar="STUDY_DIR")
    parser.add_argument("--csv", type=Path, metavar="FOLDER", help="write choice-STUDY.csv there")
    parser.add_argument("--reliability", type=Path, metavar="FILE", help="write it there")
    asked = parser.parse_args()
    studies = [load.read(folder) for folder in asked.folders]
    passed = []
    for study in studies:
        passed.append(set(print_checks(study, checks(study))))
        print_regrets(study)
    everywhere = sorted(set.intersection(*passed))
    print(f"\nPasses in every study: {', '.join(everywhere) or 'none'}")
    for study in studies if asked.csv else ():
        write_csv(asked.csv / f"choice-{study.name.removeprefix('choice_')}.csv", study)
    if asked.reliability:
        text = json.dumps(reliability(studies), indent=1)
        asked.reliability.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
