"""Multi-model attacks over the seeds of a study: what they see, and that they tell good from bad."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from sweeps.flow.shadow_attacks import Answers, Targets, audit

CLASSES, FORGOTTEN, HELD_OUT = 4, 40, 200
RNG = np.random.default_rng(0)
LABELS = {"forget": RNG.integers(0, CLASSES, FORGOTTEN), "test": RNG.integers(0, CLASSES, HELD_OUT)}
POPULATION = np.arange(HELD_OUT) % 2 == 0


def models(count: int, shift: float, seed: int) -> dict[int, Answers]:
    """Models whose logit of the true class is higher by `shift` on D_f than on the test samples."""
    rng = np.random.default_rng(seed)

    def logits(labels: NDArray[np.int64], extra: float) -> NDArray[np.float32]:
        z = rng.normal(0, 1, (len(labels), CLASSES))
        z[np.arange(len(labels)), labels] += 1 + extra
        return z.astype(np.float32)

    return {
        s: Answers(logits(LABELS["forget"], shift), logits(LABELS["test"], 0)) for s in range(count)
    }


def run(count: int, shift: float) -> dict[int, dict[str, float]]:
    unlearned, retrained = models(count, shift, 1), models(count, 0, 2)
    return audit(unlearned, retrained, Targets(LABELS["forget"], LABELS["test"], POPULATION), 0.5)


def test_models_that_remember_are_told_from_retrained_ones() -> None:
    good, bad = run(10, 0.0), run(10, 4.0)
    for name in ("u_lira_acc", "u_lira_auc", "rmia_auc"):
        mean = {
            key: np.mean([v[name] for v in found.values()])
            for key, found in (("good", good), ("bad", bad))
        }
        assert mean["good"] == pytest.approx(0.5, abs=0.08)
        assert mean["bad"] > 0.85
    assert bad[0]["fscore_neurips"] < good[0]["fscore_neurips"]


def test_the_score_of_all_models_is_given_once() -> None:
    found = run(4, 1.0)
    assert set(found) == {0, 1, 2, 3}
    for name in ("fscore_neurips", "score_neurips", "fscore_seed003"):
        assert [s for s, values in found.items() if name in values] == [0]
    assert found[0]["score_neurips"] == found[0]["fscore_neurips"] * 0.5


def test_attacks_with_too_few_models_are_absent_rather_than_numbers() -> None:
    few = run(4, 1.0)
    assert not any(name.startswith("u_lira") for values in few.values() for name in values)
    assert all("rmia_auc" in values for values in few.values())
    assert run(1, 1.0) == {0: {}}
    assert all("u_lira_acc" in values for values in run(9, 1.0).values())


def test_the_report_shows_what_an_audit_found_beside_the_confirmed_trial() -> None:
    from mu.record import TrialRecord
    from reports.load import with_audits

    confirmed = TrialRecord(
        "a", "s", "confirm", "some", "jit", 1, "finished", {"lr": 0.1}, metrics={"test": {"x": 1.0}}
    )
    audited = TrialRecord(
        "b",
        "s",
        "audit",
        "some",
        "jit",
        1,
        "finished",
        {"lr": 0.1},
        metrics={"test": {"rmia_auc": 0.6}},
    )
    other = TrialRecord("c", "s", "confirm", "some", "jit", 2, "finished", {"lr": 0.1})
    joined = with_audits([confirmed, audited, other])
    assert [r.key for r in joined] == ["a", "c"]
    assert joined[0].metrics == {"test": {"x": 1.0, "rmia_auc": 0.6}}
    assert joined[1] == other
