"""Write ``trials.jsonl`` beside this file: a small study with hand-chosen numbers, for the tests of reports.

Run as ``python tests/data/make_trials.py`` from the repository root. `random10` forgets samples, `class3` a
class. `alpha` does everything; `beta` has no epochs, lost a seed, and was never run on `class3`; `gamma` fails
once it is tuned; `delta` finishes no search trial on `random10`.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from mu.record import TrialRecord, to_line, trial_line, write

NAMES = {
    "random10": ("acc_test", "acc_forget", "mia_lr_entropy", "activation_distance"),
    "class3": (
        "acc_test_retain",
        "acc_forget",
        "acc_test_forget",
        "mia_lr_entropy",
        "activation_distance",
    ),
}
KNOBS: Mapping[str, Mapping[str, Any]] = {
    "alpha": {"lr": 0.01, "epochs": 5},
    "beta": {"strength": 2.5},
    "gamma": {"lr": 0.3, "epochs": 4},
    "delta": {"lr": 0.5, "epochs": 3},
}
TRACEBACK = 'Traceback (most recent call last):\n  File "gamma.py", line 7, in unlearn\nValueError: bad <lr> & "knobs"\n'
Values = Sequence[float]


def study() -> dict[str, Any]:
    """The content of the study line."""
    return {
        "study": "tiny",
        "definition": {
            "study": "tiny",
            "data": {"name": "digits"},
            "model": {"name": "small_cnn"},
            "training": {"epochs": 12, "optimizer": "sgd", "lr": 0.1},
            "forget": {
                "random10": {"kind": "random", "fraction": 0.1},
                "class3": {"kind": "full_class", "class": "3"},
            },
            "methods": [
                {
                    "name": "alpha",
                    "fix": {"epochs": 5},
                    "space": {"lr": {"low": 0.001, "high": 0.1, "log": True}},
                },
                {"name": "beta", "fix": {}, "space": {"strength": {"low": 0.0, "high": 9.0}}},
                {"name": "gamma", "fix": {}, "space": {"epochs": {"choices": [2, 4]}}},
                {"name": "delta", "fix": {}, "space": {}},
            ],
            "seeds": {"search": [0], "report": [1, 2, 3]},
            "search": {
                "trials": 3,
                "sampler": "tpe",
                "objective": ["avg_gap_natmu"],
                "early_stop": "collapse",
            },
            "experiments": {
                "sufficient": 20,
                "transfer": [["random10", "class3"], ["class3", "random10"]],
            },
            "resources": {"cpus": 1.0, "gpus": 0.0, "concurrent": None},
        },
        "data": {
            "name": "digits",
            "fingerprint": "f00d",
            "parts": {"train": 1000, "val": 200, "twin": 0, "test": 250},
            "classes": 10,
            "class_names": list("0123456789"),
            "input_shape": [1, 8, 8],
        },
        "requests": {
            "random10": {"kind": "random", "forget": 100, "retain": 900, "whole_class": False},
            "class3": {"kind": "full_class", "forget": 98, "retain": 902, "whole_class": True},
        },
        "methods": {
            name: {
                "summary": f"Method {name}",
                "zero_shot": name == "beta",
                "has_epochs": "epochs" in knobs,
                "knobs": knobs,
            }
            for name, knobs in KNOBS.items()
        },
        "versions": {"musweep": "0.1.0", "python": "3.11.7", "numpy": "2.4.6"},
        "started": 1_700_000_000.0,
    }


def references() -> Iterator[TrialRecord]:
    """Original and retrained models; the seed of the search has numbers that no table may show."""
    random10 = {
        "original": ((0.93, 1.0, 0.95),) * 3,
        "retrain": ((0.90, 0.88, 0.50, 0.02), (0.91, 0.90, 0.50, 0.03), (0.92, 0.92, 0.53, 0.04)),
    }
    class3 = {
        "original": ((0.95, 0.99, 0.98, 0.90),) * 3,
        "retrain": (
            (0.94, 0.0, 0.0, 0.10, 0.01),
            (0.95, 0.0, 0.0, 0.20, 0.01),
            (0.96, 0.0, 0.0, 0.30, 0.01),
        ),
    }
    for forget, models in (("random10", random10), ("class3", class3)):
        for method, runs in models.items():
            for seed, values, seconds in zip((1, 2, 3), runs, (100.0, 120.0, 200.0)):
                yield _record(
                    "reference",
                    forget,
                    method,
                    seed,
                    values,
                    role="report",
                    time_unlearn=seconds,
                    confusions=_confusions(9) if forget == "random10" else {},
                )
            unseen = [0.123] * len(runs[0])
            yield _record("reference", forget, method, 0, unseen, role="search", time_unlearn=9.0)


def search() -> Iterator[TrialRecord]:
    """Search trials: objective on `val`, or how the trial ended."""
    outcomes: dict[tuple[str, str], tuple[float | str, ...]] = {
        ("random10", "alpha"): (0.05, 0.03, "stopped"),
        ("random10", "beta"): (0.04, "failed"),
        ("random10", "gamma"): (0.06,),
        ("random10", "delta"): ("diverged", "diverged"),
        ("class3", "alpha"): (0.02,),
        ("class3", "gamma"): (0.05,),
        ("class3", "delta"): (0.07,),
    }
    for (forget, method), trials in outcomes.items():
        best = min((t for t in trials if isinstance(t, float)), default=None)
        for number, result in enumerate(trials):
            knobs = {k: v if result == best else v * 2 for k, v in KNOBS[method].items()}
            ended: dict[str, Any] = {"number": number, "knobs": knobs, "time_total": 2.0}
            if isinstance(result, str):
                reason = f"{result} after epoch {number + 1}"
                yield _record(
                    "search", forget, method, 0, (), status=result, reason=reason, **ended
                )
            else:
                metrics = {"val": {"avg_gap_natmu": result}}
                yield _record("search", forget, method, 0, (), metrics=metrics, **ended)


def confirm() -> Iterator[TrialRecord]:
    """Yield the trials with tuned knobs on the report seeds."""
    alpha = {"knobs": KNOBS["alpha"]}
    for seed, values, seconds in zip(
        (1, 2, 3),
        ((0.895, 0.90, 0.40, 0.10), (0.905, 0.95, 0.45, 0.12), (0.915, 1.00, 0.50, 0.14)),
        (4.0, 5.0, 6.0),
    ):
        yield _record(
            "confirm",
            "random10",
            "alpha",
            seed,
            values,
            time_unlearn=seconds,
            samples_seen=1000,
            curve=_curve(1.0, 0.97, values[1]),
            confusions=_confusions(6 + seed),
            **alpha,
        )
    beta = {"knobs": KNOBS["beta"], "time_unlearn": 0.25, "samples_seen": 300}
    yield _record("confirm", "random10", "beta", 1, (0.80, 0.89, 0.53, 0.02), **beta)
    yield _record("confirm", "random10", "beta", 2, (0.82, 0.90, 0.55, 0.03), **beta)
    lost = {"status": "diverged", "reason": "outputs are not finite"}
    yield _record("confirm", "random10", "beta", 3, (), **lost, **beta)
    broken = {"status": "failed", "reason": TRACEBACK, "knobs": KNOBS["gamma"]}
    for seed in (1, 2, 3):
        yield _record("confirm", "random10", "gamma", seed, (), **broken)
    for seed, forget in zip((1, 2, 3), (0.0, 0.03, 0.06)):
        yield _record("confirm", "class3", "alpha", seed, (0.95, forget, 0.0, 0.25, 0.2), **alpha)
    for seed, status in zip((1, 2, 3), ("diverged", "failed", "failed")):
        yield _record(
            "confirm",
            "class3",
            "delta",
            seed,
            (),
            status=status,
            reason="lost",
            knobs=KNOBS["delta"],
        )


def sufficient() -> Iterator[TrialRecord]:
    """Yield the trials of `alpha` with its epochs extended to 20."""
    longer = {"knobs": {"lr": 0.01, "epochs": 20}}
    for seed in (1, 2, 3):
        yield _record(
            "sufficient",
            "random10",
            "alpha",
            seed,
            (0.89, 0.60, 0.21, 0.40),
            curve=_curve(1.0, 0.97, 0.96, 0.94, float("nan"), 0.9, 0.6),
            **longer,
        )
    yield _record("sufficient", "class3", "alpha", 1, (0.95, 0.0, 0.0, 0.20, 0.1), **longer)


def transfer() -> Iterator[TrialRecord]:
    """Yield the trials with knobs that were tuned on the other request."""
    alpha = {"knobs": KNOBS["alpha"]}
    for seed in (1, 2, 3):
        moved = {"source": "random10", "seed": seed}
        yield _record(
            "transfer", "class3", "alpha", values=(0.93, 0.10, 0.05, 0.20, 0.3), **moved, **alpha
        )
        yield _record(
            "transfer",
            "class3",
            "beta",
            values=(0.88, 0.5, 0.4, 0.2, 0.3),
            **moved,
            knobs=KNOBS["beta"],
        )
        yield _record(
            "transfer",
            "random10",
            "alpha",
            seed,
            (0.90, 0.95, 0.46, 0.2),
            source="class3",
            **alpha,
        )


def lines() -> list[str]:
    """Return every line of the file."""
    records = [*references(), *search(), *confirm(), *sufficient(), *transfer()]
    return [to_line("study", study()), *(trial_line(record) for record in records)]


def _record(
    phase: str, forget: str, method: str, seed: int = 0, values: Values = (), **fields: Any
) -> TrialRecord:
    """A record whose `test` view has the values, and whose `val` view is 1 percent below."""
    metrics = dict(zip(NAMES[forget], values))
    if metrics and phase != "search":
        val = {name: round(value - 0.01, 6) for name, value in metrics.items()}
        fields.setdefault("metrics", {"val": val, "test": metrics})
    parts = (phase, forget, method, seed, fields.get("number"), fields.get("source"))
    return TrialRecord(
        key="/".join(str(part) for part in parts if part is not None),
        study="tiny",
        phase=phase,
        forget=forget,
        method=method,
        seed=seed,
        **{"status": "finished", "environment": {"host": "node-1", "device": "cpu"}, **fields},
    )


def _confusions(right: int) -> dict[str, list[list[int]]]:
    """Ten samples of class 0, so many of them right and the others taken for 1, and five of class 7."""
    cells = [[0, 0, right], [0, 1, 10 - right], [7, 7, 5]]
    return {"forget": cells, "test": cells}


def _curve(*forget: float) -> list[dict[str, float]]:
    return [
        {"epoch": epoch, "seconds": 0.5 * epoch, "acc_forget": value}
        for epoch, value in enumerate(forget)
    ]


if __name__ == "__main__":
    write(Path(__file__).with_name("trials.jsonl"), lines())
