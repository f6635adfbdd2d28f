"""How long membership attacks take, ours and scikit-learn's: ``python benchmarks/attacks.py [--save]``.

Both fit the same scores in the same run, in turns, in one thread. The logistic attack of scikit-learn is timed as the
papers call it (lbfgs, default tolerance); coefficients are compared with its Newton solver run to 1e-12. The support
vector machine of ours fits equal samples as one; scikit-learn's is the papers' call, ``SVC(C=3, gamma="auto")``, on all
of them. What both call members is compared.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sklearn
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.svm import SVC
from threadpoolctl import threadpool_limits

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import figures
from benchmarks.figures import Figure
from benchmarks.machine import processor
from mu.metrics.attacks import svc_features, svc_members
from mu.metrics.logistic import Threshold, fit_logistic

Array = NDArray[np.float64]


def scores(kind: str, members: int, nonmembers: int) -> tuple[Array, Array]:
    """Scores of both sets: `entropy` of a fitted network, `overlap`ping, `separable` or all the same."""
    rng = np.random.default_rng(0)
    if kind == "entropy":
        return rng.exponential(0.05, members), rng.exponential(0.4, nonmembers)
    if kind == "overlap":
        return rng.normal(0, 1, members), rng.normal(0.3, 1.2, nonmembers)
    if kind == "separable":
        return rng.uniform(0, 1, members), rng.uniform(3, 4, nonmembers)
    return np.full(members, 0.7), np.full(nonmembers, 0.7)


def seconds(run: Callable[[], object]) -> float:
    """Of the processor: cores may be shared with other work."""
    began = time.process_time()
    run()
    return time.process_time() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--members", type=int, default=50_000)
    parser.add_argument("--nonmembers", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=30)
    parser.add_argument("--save", action="store_true", help="put the figures into results.csv")
    options = parser.parse_args()

    print(
        f"{options.members} + {options.nonmembers} scores, {options.repeats} repeats, CPU, one thread; "
        f"Python {platform.python_version()}, numpy {np.__version__}, scikit-learn {sklearn.__version__}"
    )
    print(
        "| scores | ours, ms (min / median) | scikit-learn, ms (min / median) | ratio (min / median) | difference |"
    )
    print("|---|---|---|---|---|")
    measured: list[Figure] = []
    with threadpool_limits(1):
        for kind in ("entropy", "overlap", "separable", "constant"):
            inside, outside = scores(kind, options.members, options.nonmembers)
            line, figure = row(kind, inside, outside, options.repeats)
            print(line)
            measured.append(figure)
        print(
            "\n| members, others | samples are | ours, s | scikit-learn, s | ratio | equal |\n"
            "|---|---|---|---|---|---|"
        )
        for counts in ((4_000, 10_000), (6_000, 6_000)):
            for feature in ("correctness", "conf", "prob"):
                print(machines(counts, feature), flush=True)
    if options.save:
        figures.save(measured, processor())


def machines(counts: tuple[int, int], kind: str) -> str:
    """A line on the support vector machine, on the feature `kind` of made-up softmax outputs."""
    rng = np.random.default_rng(0)

    def drawn(count: int, sharper: float) -> Array:
        logits = rng.normal(0, 1 + sharper, (count, 10))
        labels = rng.integers(0, 10, count)
        return svc_features(logits, labels)[kind]

    inside, outside, queries = drawn(counts[0], 0.5), drawn(counts[1], 0.0), drawn(500, 0.25)
    samples, labels = np.concatenate([inside, outside]), np.repeat([1, 0], counts)
    called: list[Array] = []

    def theirs() -> None:
        called.append(SVC(C=3, gamma="auto", kernel="rbf").fit(samples, labels).predict(queries))

    def ours() -> None:
        called.append(svc_members(inside, outside, queries))

    pairs = [(seconds(ours), seconds(theirs)) for _ in range(2)]
    here, there = map(min, zip(*pairs))
    equal = all(np.array_equal(each, called[0]) for each in called)
    return (
        f"| {counts[0]:,}, {counts[1]:,} | {kind} | {here:.3f} | {there:.3f} | {there / here:.0f} | "
        f"{'yes' if equal else 'NO'} |"
    )


def row(kind: str, inside: Array, outside: Array, repeats: int) -> tuple[str, Figure]:
    """Time the logistic attack; return a line of the table, and the figure of the fastest runs."""
    samples = np.concatenate([inside, outside])[:, None]
    labels = np.repeat([1, 0], [len(inside), len(outside)])

    def theirs() -> LogisticRegression:
        return LogisticRegression(C=2, class_weight="balanced").fit(samples, labels)

    pairs = [
        (seconds(lambda: fit_logistic(inside, outside)), seconds(theirs)) for _ in range(repeats)
    ]
    ours, other = zip(*pairs)
    exact = LogisticRegression(
        C=2, class_weight="balanced", solver="newton-cholesky", tol=1e-12, max_iter=1000
    ).fit(samples, labels)
    difference = distance(fit_logistic(inside, outside), exact)
    if difference > 1e-6:
        raise SystemExit(f"{kind}: coefficients differ by {difference:.1e}, more than 1e-6")
    middle = statistics.median(ours), statistics.median(other)
    times = " | ".join(
        f"{1e3 * min(t):.2f} / {1e3 * statistics.median(t):.2f}" for t in (ours, other)
    )
    ratio = f"{min(other) / min(ours):.0f} / {middle[1] / middle[0]:.0f}"
    figure = Figure(
        "attacks",
        f"logistic attack on {len(samples):,} scores, {kind}",
        f"{1e3 * min(ours):.2f} ms",
        f"{min(other) / min(ours):.0f}",
        "faster than scikit-learn",
    )
    return f"| {kind} | {times} | {ratio} | {difference:.0e} |", figure


def distance(fitted: Threshold, exact: LogisticRegression) -> float:
    """Largest relative difference of slope and intercept."""
    pairs = ((fitted.slope, exact.coef_.item()), (fitted.intercept, exact.intercept_.item()))
    return max(abs(a - b) / max(1.0, abs(b)) for a, b in pairs)


if __name__ == "__main__":
    main()
