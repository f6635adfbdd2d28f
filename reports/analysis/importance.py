"""How much each knob decides of the objective, by Optuna's fANOVA on studies rebuilt from the records.

The only module of reports that imports Optuna, when asked: without it the report says so and goes on. A random
forest predicts the objective from the knobs, and a knob's importance is its share of the variance that knobs
explain one by one (Hutter et al., ICML 2014); shares add up to 1. It says what decides between good and destroyed
models anywhere in the space, not what is left to gain near the best; and a forest of few trials explains noise.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mu.keys import derive_seed
from mu.selection import Candidate
from reports.analysis.spaces import Span, spans
from reports.load import RecordedMethod, RecordedRequest, RecordedStudy

ENOUGH = 8
"""Fewer finished trials than these are not looked at."""
TREES = 16
"""Of the forest. Optuna's 64 take four times as long, and move shares by no more than another seed does."""


@dataclass(frozen=True)
class Importance:
    """Importance of the knobs of one cell.

    Args:
        shares: Knob to its share, in [0, 1]; empty when there is none.
        reason: Why there is none.
    """

    shares: Mapping[str, float] = field(default_factory=dict)
    reason: str = ""


def importance(
    study: RecordedStudy, request: RecordedRequest, method: RecordedMethod
) -> Importance:
    """The importances of a cell, or the reason why there are none."""
    return study.once(
        ("importance", request.name, method.name), lambda: _importance(study, request, method)
    )


def mean_shares(study: RecordedStudy, method: RecordedMethod) -> dict[str, float]:
    """Knob to its importance, averaged over the requests that have one; the most important first."""
    found = [
        shares
        for request in study.requests
        if (shares := importance(study, request, method).shares)
    ]
    means = {
        span.knob: sum(shares.get(span.knob, 0.0) for shares in found) / max(1, len(found))
        for span in spans(study, method)
    }
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def _importance(
    study: RecordedStudy, request: RecordedRequest, method: RecordedMethod
) -> Importance:
    found = study.candidates.get((request.name, method.name), ())
    varied = [
        span
        for span in spans(study, method)
        if len({repr(candidate.knobs.get(span.knob)) for candidate in found}) > 1
        and all(math.isfinite(span.place(candidate.knobs.get(span.knob))) for candidate in found)
    ]
    if len(found) < ENOUGH:
        return Importance(reason=f"{len(found)} of {ENOUGH} trials")
    if not varied:
        return Importance(reason="no knob varies")
    if max(c.value for c in found) == min(c.value for c in found):
        return Importance(reason="objective does not vary")
    try:
        shares = _fanova(
            varied, found, derive_seed("importance", study.name, request.name, method.name)
        )
    except ImportError as error:
        return Importance(reason=f"{error.name or 'scikit-learn'} is not installed")
    except RuntimeError as error:
        if "zero total variance" not in str(error):
            raise
        return Importance(reason="objective hardly varies")
    return Importance(shares)


def _fanova(varied: Sequence[Span], found: Sequence[Candidate], seed: int) -> dict[str, float]:
    """Shares by Optuna, which weighs a range by its length also where it is logarithmic: it is given decades."""
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

    def distribution(span: Span) -> BaseDistribution:
        if span.choices:
            return CategoricalDistribution(range(len(span.choices)))
        return FloatDistribution(_scaled(span, span.low), _scaled(span, span.high))

    distributions = {span.knob: distribution(span) for span in varied}
    trials = [
        optuna.trial.create_trial(
            params={span.knob: _scaled(span, candidate.knobs[span.knob]) for span in varied},
            distributions=distributions,
            value=candidate.value,
        )
        for candidate in found
    ]
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        rebuilt = optuna.create_study()
        rebuilt.add_trials(trials)
        evaluator = optuna.importance.FanovaImportanceEvaluator(n_trees=TREES, seed=seed % 2**32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            shares = optuna.importance.get_param_importances(rebuilt, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return {knob: float(share) for knob, share in shares.items()}


def _scaled(span: Span, value: Any) -> float:
    """A value on the scale on which it was sampled; a choice is its position."""
    place = span.place(value)
    if span.choices:
        return int(place)
    return math.log10(place) if span.log else place
