"""The rules that choose knobs from a menu, and how they are asked. Needs no torch.

A rule is a pure function of what was recorded: ``cost`` of ``mu.selection.Rule``, and a line in ``MENU_RULES``. What it may
see is all that it is given: ``scores`` hides the retrained models from every rule that is no oracle, and stand-ins
from every rule that does not name them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial

from mu.metrics import AVG_GAP_NATMU, MEAN_GAPS
from mu.problem_names import COSTS
from mu.record import PORTFOLIO
from mu.selection import RULES, Candidate, References, Rule, Values, utility_loss

COMPARED = frozenset(
    {
        *(name for lists in MEAN_GAPS.values() for name in lists),
        "activation_distance",
        "delta_acc_forget",
        "entropy_median_diff",
        "entropy_wilcoxon_p",
        "mean_gap",
        "mia_svc_gap_max",
    }
)
"""Metrics of a record that compare with a retrained model; candidates of a menu do not have them."""
Scores = dict[int, tuple[float, ...]]


class Hidden(Mapping[str, float]):
    """The metrics of models that a rule may not look at. Reading them raises LookupError."""

    def __init__(self, rule: str):
        self.rule = rule

    def __getitem__(self, name: str) -> float:
        raise LookupError(f"rule {self.rule} reads {name} of a retrained model, but is no oracle")

    def get(self, name: str, default: object = None) -> float:
        return self[name]

    def __contains__(self, name: object) -> bool:
        return bool(self[str(name)])

    def __iter__(self) -> Iterator[str]:
        return iter([self.rule] if self["everything"] else [])

    def __len__(self) -> int:
        return int(self["everything"])


def scores(rule: Rule, tried: Sequence[Candidate], known: References) -> Scores:
    """Return what a rule makes least, by number of the candidate; a candidate without its metrics is left out.

    Raises:
        LookupError: The rule reads a retrained model, but is no oracle.
    """
    if rule.parts:
        return _mean_ranks(rule, tried, known)
    there = {name: of for name, of in known.on.items() if name in rule.needs}
    seen = replace(known, on=there)
    if not rule.oracle:
        seen = replace(seen, retrain=Hidden(rule.name), one=Hidden(rule.name))
    narrowed = [
        replace(each, on={name: each.on[name] for name in rule.needs if name in each.on})
        for each in tried
    ]
    costs = {each.number: rule.cost(each, seen) for each in narrowed}
    return {number: cost for number, cost in costs.items() if all(map(math.isfinite, cost))}


def chosen(found: Scores) -> tuple[int, ...]:
    """Return the numbers of the candidates that a rule cannot tell from the best: a user would take any of them."""
    least = min(found.values(), default=None)
    return tuple(number for number, cost in found.items() if cost == least)


def eligible(tried: Sequence[Candidate], known: References, limit: float) -> list[Candidate]:
    """Return the candidates that lose no more utility than `limit`, a fraction; all of them where each loses more."""
    kept = [one for one in tried if not utility_loss(one, known) > limit]
    return kept or list(tried)


def average_gap(values: Values, reference: Values, whole_class: bool = False) -> float:
    """Return NatMU's AvgGap of metrics to those of another model; NaN where one is missing."""
    names = AVG_GAP_NATMU[whole_class]
    gaps = [abs(values.get(name, math.nan) - reference.get(name, math.nan)) for name in names]
    return round(sum(gaps) / len(gaps), 9)


def _mean_ranks(rule: Rule, tried: Sequence[Candidate], known: References) -> Scores:
    """Return the mean of the ranks that other rules give; candidates that one of them cannot rank are left out."""
    ranked = [_ranks(scores(RULE[name], tried, known)) for name in rule.parts]
    shared = set.intersection(*(set(ranks) for ranks in ranked))
    return {
        number: (round(sum(ranks[number] for ranks in ranked) / len(ranked), 9),)
        for number in sorted(shared)
    }


def _ranks(found: Scores) -> dict[int, float]:
    """Return the rank of each candidate, from 1; equals share the mean of theirs."""
    order = sorted(found.values())
    return {
        number: order.index(cost) + (order.count(cost) + 1) / 2 for number, cost in found.items()
    }


def _any(candidate: Candidate, known: References) -> tuple[float, ...]:
    return (0.0,)


def _is_default(candidate: Candidate, known: References) -> tuple[float, ...]:
    return (0.0,) if candidate.origin == "defaults" else (math.nan,)


def _is_from_earlier(candidate: Candidate, known: References) -> tuple[float, ...]:
    return (0.0,) if candidate.origin not in ("", "defaults", PORTFOLIO) else (math.nan,)


def _gap_on(name: str, candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return AvgGap where the same knobs were tried as well, to the retrained model that is known there."""
    there = known.on.get(name, References())
    return (average_gap(candidate.on.get(name, {}), there.retrain, there.whole_class),)


def _gap_to_cheap(name: str, candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return AvgGap to a cheap retrained model."""
    proxy = known.on.get(name, References()).retrain
    return (average_gap(candidate.metrics, proxy, known.whole_class),)


def expected_retrain(known: References, accuracy: float = 0.0, rate: float = 0.0) -> Values:
    """Return what a retrained model should score, by the original alone: D_f is to it what held-out data is to the original.

    Args:
        accuracy, rate: By how much forget accuracy and the attack's rate on D_f should be above those on held-out
            data, because D_f is easier.
    """
    kept = known.original.get("acc_test", math.nan)
    attacked = known.original.get("mia_lr_entropy_held_out", math.nan)
    return {"acc_test": kept, "acc_forget": kept + accuracy, "mia_lr_entropy": attacked + rate}


def _expected(candidate: Candidate, known: References) -> tuple[float, ...]:
    return (average_gap(candidate.metrics, expected_retrain(known)),)


def _expected_by_original(candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return AvgGap to the expected retrained model, where D_f is as much easier as it was for the original than D_r."""
    own = known.original
    accuracy = own.get("acc_forget", math.nan) - own.get("acc_retain", math.nan)
    rate = own.get("mia_lr_entropy", math.nan) - own.get("mia_lr_entropy_retain", math.nan)
    return (average_gap(candidate.metrics, expected_retrain(known, accuracy, rate)),)


def _expected_by(name: str, candidate: Candidate, known: References) -> tuple[float, ...]:
    """Return AvgGap to the expected retrained model, where D_f is as much easier than held-out data as for a cheap retrained model.

    Where a whole class goes, nothing of it is recognised, and the attack's rate is the cheap model's.
    """
    proxy = known.on.get(name, References()).retrain
    rate = proxy.get("mia_lr_entropy", math.nan)
    if known.whole_class:
        kept = known.original.get("acc_test_retain", math.nan)
        gone = {"acc_forget": 0.0, "acc_test_forget": 0.0, "mia_lr_entropy": rate}
        return (average_gap(candidate.metrics, {"acc_test_retain": kept, **gone}, True),)
    accuracy = proxy.get("acc_forget", math.nan) - proxy.get("acc_test", math.nan)
    rate -= proxy.get("mia_lr_entropy_held_out", math.nan)
    return (average_gap(candidate.metrics, expected_retrain(known, accuracy, rate)),)


def _gap_to_one(candidate: Candidate, known: References) -> tuple[float, ...]:
    return (average_gap(candidate.metrics, known.one, known.whole_class),)


def _gap_to_all(candidate: Candidate, known: References) -> tuple[float, ...]:
    return (average_gap(candidate.metrics, known.retrain, known.whole_class),)


def _combined(name: str, label: str, *parts: str) -> Rule:
    """Return the rule of the mean rank of others, which needs and costs what these do."""
    rules = [RULE[part] for part in parts]
    needs = tuple(dict.fromkeys(need for rule in rules for need in rule.needs))
    cost = sum(COSTS.get(need, 0.0) for need in needs)
    reason = f"mean rank of {', '.join(parts)}: errors of one are not those of another"
    return Rule(name, label, False, False, _any, needs, cost, reason, parts)


_PLAIN = {rule.name: rule for rule in RULES}
_SINGLE = (
    Rule("random", "Any of the menu", False, None, _any, ranks=False, reason="what no choice costs"),
    Rule("defaults", "Authors' defaults", False, None, _is_default, ranks=False, reason="the papers"),
    Rule(
        "start_from", "Best of an earlier study", False, None, _is_from_earlier, ("start_from",),
        reason="knobs of other data or another model", ranks=False,
    ),
    Rule(
        "transfer", "Best on another request", False, None, partial(_gap_on, "transfer"), ("transfer",), 1.0,
        reason="one retraining serves all later requests",
    ),
    *(_PLAIN[name] for name in ("held_out", "losses", "attack", "rf_jsd", "class_gone")),
    Rule(
        "expected", "AvgGap to the expected retrained model", False, False, _expected,
        reason="a retrained model meets D_f as the original meets held-out data",
    ),
    Rule(
        "expected_original", "the same, D_f as easy as for the original", False, False,
        _expected_by_original,
        reason="the original's difference between D_f and D_r says whether D_f is easy",
    ),
    Rule(
        "expected_epochs", "the same, D_f as easy as for a short retraining", False, None,
        partial(_expected_by, "epochs"), ("epochs",), COSTS["epochs"],
        reason="a model that never saw D_f says whether it is easy, long before it is good",
    ),
    Rule(
        "expected_data", "the same, D_f as easy as for a small retraining", False, None,
        partial(_expected_by, "data"), ("data",), COSTS["data"],
        reason="a model that never saw D_f says whether it is easy, on a quarter of the data",
    ),
    Rule(
        "expected_model", "the same, D_f as easy as for a smaller network", False, None,
        partial(_expected_by, "model"), ("model",), COSTS["model"],
        reason="a smaller network that never saw D_f says whether it is easy",
    ),
    Rule(
        "proxy_epochs", "AvgGap to a short retraining", False, None, partial(_gap_to_cheap, "epochs"), ("epochs",),
        COSTS["epochs"], reason="a tenth of the epochs in place of all",
    ),
    Rule(
        "proxy_data", "AvgGap to a small retraining", False, None, partial(_gap_to_cheap, "data"), ("data",),
        COSTS["data"], reason="a quarter of D_r in place of all",
    ),
    Rule(
        "proxy_model", "AvgGap to a smaller network, retrained", False, None, partial(_gap_to_cheap, "model"),
        ("model",), COSTS["model"], reason="a smaller network in place of the large one",
    ),
    Rule(
        "twin", "Best on the twin", False, False, partial(_gap_on, "twin"), ("twin",), COSTS["twin"],
        reason="held-out samples that the model has learned stand for D_f; the original never saw them",
    ),
    Rule(
        "oracle_one", "AvgGap to one retrained model", True, None, _gap_to_one, retrainings=1.0,
        reason="what every paper tunes against",
    ),
    Rule(
        "oracle_all", "AvgGap to all retrained models", True, None, _gap_to_all,
        retrainings=math.nan, reason="the same without the noise of a single model",
    ),
)  # fmt: skip
RULE = {rule.name: rule for rule in _SINGLE}
"""Rules by name."""
_COMBINED = (
    _combined("ranks", "Mean rank: no retraining", "held_out", "losses", "attack", "rf_jsd"),
    _combined("ranks_epochs", "Mean rank: losses, short retraining", "losses", "expected_epochs"),
    _combined("ranks_twin", "Mean rank: losses, expected, twin", "losses", "expected", "twin"),
)
RULE.update((rule.name, rule) for rule in _COMBINED)
MENU_RULES = (*_SINGLE[:-2], *_COMBINED, *_SINGLE[-2:])
"""Every rule, in the order of tables: what needs nothing first, oracles last."""
EVERYTHING = ("random", "defaults")
"""Rules that choose from the whole menu, not only from what keeps utility."""
