"""The arithmetic of ideas for choosing knobs, on made-up rows."""

from __future__ import annotations

import pandas as pd
import pytest

from benchmarks import choice_ideas
from benchmarks.choice_ideas import CELL, FREE


def made_up() -> pd.DataFrame:
    """Return rows of two requests in which the regret is what `losses` says, and in a third where it is the opposite."""
    rows = []
    for request, sign in (("a", 1), ("b", 1), ("c", -1)):
        for seed in (1, 2):
            for number in range(100):
                cell = dict(zip(CELL, ("made up", request, "natmu", seed), strict=True))
                costs = {f"rule {name}": 0.5 for name in FREE} | {"rule losses": number / 100}
                points = float(number if sign > 0 else 99 - number)
                rows.append({**cell, **costs, "points": points, "noise": 0.5, "seen acc": 0.0})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("name", ["ridge", "trees"])
def test_a_fit_knows_only_the_other_requests(name: str) -> None:
    rows = made_up()
    kept = rows[rows["forget"] != "c"].reset_index(drop=True)
    known = choice_ideas.chosen(kept, choice_ideas.fitted(kept, (), kept["forget"])[name])
    assert (known["points"] <= 10).all()
    opposite = rows[rows["forget"] != "b"].reset_index(drop=True)
    misled = choice_ideas.chosen(
        opposite, choice_ideas.fitted(opposite, (), opposite["forget"])[name]
    )
    assert (misled["points"] >= 80).all()


def test_equals_share_the_regret_and_seeds_are_averaged() -> None:
    rows = made_up()
    found = choice_ideas.chosen(rows, rows["rule losses"].clip(lower=0.01))
    assert found.loc[("made up", "a", "natmu")].to_dict() == {"points": 0.5, "noise": 0.5}
    assert found.loc[("made up", "c", "natmu"), "points"] == 98.5
    text = choice_ideas.line("x", found, found)
    assert text == "| x | 33.2 | 0.5 | 0.5 | 98.5 | 67% | +0.0 (+0.0 to +0.0) |"
