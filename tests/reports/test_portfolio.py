"""Portfolios and their worth on made-up landscapes, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from mu.record import TrialRecord
from reports import load
from reports.analysis import portfolio
from reports.analysis.landscapes import Landscape, data_name, landscapes, point

DEFAULTS, A, B, C = (point({"lr": rate}) for rate in (0.0, 0.1, 0.2, 0.3))


def cell(request: str = "r", method: str = "ga", noise: float = 0.0, **fields: Any) -> Landscape:
    gaps = fields.pop("gaps")
    common = {"study": "s", "uuid": "u", "data": "d", "model": "m", "seeds": (1,), "phase": "menu"}
    return Landscape(
        request=request, method=method, noise=noise, gaps=gaps, fixed={}, defaults=DEFAULTS,
        **{**common, **fields},
    )  # fmt: skip


ONE = cell("one", gaps={DEFAULTS: 0.4, A: 0.1, B: 0.2, C: 0.3})  # median 0.25: the scale is 0.15
TWO = cell("two", gaps={DEFAULTS: 0.4, A: 0.3, B: 0.2, C: 0.1})


def test_regret_is_a_share_of_median_minus_best_or_of_a_noise_floor_where_that_is_more() -> None:
    assert ONE.regret(A) == 0
    assert ONE.regret(B) == pytest.approx(0.1 / 0.15)
    assert ONE.regret(point({"lr": 9})) == 1
    flat = replace(ONE, noise=0.5)
    assert flat.regret(DEFAULTS) == pytest.approx(0.3 / 0.5)
    assert cell(gaps={A: 0.1, B: 0.1}).regret(B) == 0


def test_the_first_is_the_best_on_average_and_the_next_helps_where_it_fails() -> None:
    chosen = portfolio.choose([ONE, TWO])
    # Alone B has 2/3 on both, A and C have 0 and 4/3, which is the same mean: the earlier of equals is A.
    assert chosen.points == (A, C)
    assert chosen.regret == (pytest.approx(2 / 3), 0.0)
    better = replace(TWO, gaps={**TWO.gaps, B: 0.15})
    chosen = portfolio.choose([ONE, better])
    assert chosen.points[0] == B
    assert portfolio.choose([ONE, better], size=1).points == (B,)
    assert portfolio.choose([ONE, better], allowed=lambda p: p != B).points == (C, A)


def test_a_configuration_that_was_tried_once_is_no_candidate_unless_there_is_one_cell() -> None:
    new = point({"lr": 5})
    lucky = replace(TWO, gaps={**TWO.gaps, new: 0.0})
    assert new not in portfolio.choose([ONE, lucky]).points
    assert portfolio.choose([lucky]).points == (new,)
    assert portfolio.choose([]).points == ()


def test_trials_to_a_good_one_by_hand() -> None:
    assert portfolio.trials_to_good(ONE, [DEFAULTS, A]) == 2
    # After the defaults there are three in random order, of which one is good: 1 + (3 + 1) / (1 + 1).
    assert portfolio.trials_to_good(ONE, [DEFAULTS]) == 3
    two_good = replace(ONE, noise=0.1)  # A and B
    assert portfolio.trials_to_good(two_good, [DEFAULTS]) == pytest.approx(1 + 4 / 3)
    assert portfolio.trials_to_good(ONE, [DEFAULTS, C, DEFAULTS]) == 2 + 3 / 2


def test_what_is_left_out_does_not_choose() -> None:
    found = {one.group: one for one in portfolio.worths([ONE, TWO], "request")}
    assert set(found) == {"one", "two"}
    # `two` alone would have chosen C, which has 0.3 on `one`; the defaults have 0.4.
    assert found["one"].first == pytest.approx(0.2)
    assert found["one"].defaults == pytest.approx(0.3)
    assert not found["one"].hurts
    assert found["one"].trials == 2 + 3 / 2
    assert found["one"].trials_without == 3
    mean = portfolio.mean_of(found.values(), lambda one: one.first)
    assert mean is not None and mean.value == pytest.approx(0.2) and mean.interval is not None


def test_a_portfolio_hurts_where_it_is_worse_than_the_defaults_by_more_than_a_noise_floor() -> None:
    bad = cell("one", gaps={DEFAULTS: 0.1, A: 0.2, C: 0.3})
    [one] = [w for w in portfolio.worths([bad, TWO], "request") if w.group == "one"]
    assert one.hurts
    noisy = replace(bad, noise=0.2)
    [one] = [w for w in portfolio.worths([noisy, TWO], "request") if w.group == "one"]
    assert not one.hurts


def test_nothing_is_measured_without_two_groups_of_a_method() -> None:
    assert portfolio.worths([ONE, TWO], "data") == []
    assert portfolio.worths([ONE, replace(TWO, method="scrub")], "request") == []
    other = replace(TWO, data="e", request="one")
    assert len(portfolio.worths([ONE, other], "data")) == 2


def views(gap: float) -> dict[str, dict[str, float]]:
    values = {"acc_test": 0.8, "acc_forget": 0.7 + gap, "mia_lr_entropy": 0.6}
    return {"val": {**values, "acc_forget": 0.1}, "test": values}


def trial(number: int, seed: int, gap: float, **fields: Any) -> TrialRecord:
    about = {"knobs": {"lr": number, "p": 2, "epochs": 2}, "metrics": views(gap), **fields}
    return TrialRecord(
        f"{number}{seed}{fields}", "toy", about.pop("phase", "menu"), "some", "ga", seed,
        about.pop("status", "finished"), number=number, **about,
    )  # fmt: skip


def study(records: list[TrialRecord]) -> load.RecordedStudy:
    models = [
        TrialRecord(f"r{seed}", "toy", "reference", "some", "retrain", seed, "finished", role=role,
                    metrics=views(offset))
        for seed, offset, role in ((1, 0.03, "report"), (2, -0.03, "report"), (0, 0.0, "search"))
    ]  # fmt: skip
    line = {
        "study": "toy",
        "uuid": "abc",
        "definition": {
            "data": {"name": "digits"},
            "model": {"name": "small_cnn"},
            "forget": {"some": {"kind": "random", "fraction": 0.1}},
            "methods": [
                {
                    "name": "ga",
                    "fix": {"epochs": 2},
                    "space": {
                        "lr": {"low": 0, "high": 9},
                        "p": {"low": 0, "high": 9, "when": {"lr": 2}},
                    },
                }
            ],
            "seeds": {"search": [0], "report": [1, 2]},
            "search": {"objective": ["avg_gap_natmu"], "trials": 0},
        },
    }
    return load.assemble(line, [*models, *records], {})


def test_a_menu_is_read_as_means_over_report_seeds_on_test() -> None:
    menu = [
        trial(0, 1, 0.3, origin="defaults"), trial(0, 2, 0.0, origin="defaults"),
        trial(1, 1, 0.06), trial(1, 2, 0.0),
        trial(2, 1, 0.0), trial(2, 2, 0.0, status="diverged", metrics={}),
        trial(3, 1, 0.0),  # which has not run on the other seed yet
    ]  # fmt: skip
    [one] = landscapes(study([*menu, trial(0, 0, 0.0, phase="search")]))
    assert (one.study, one.uuid, one.data, one.model) == ("toy", "abc", "digits", "small_cnn")
    assert (one.request, one.method, one.seeds, one.phase) == ("some", "ga", (1, 2), "menu")
    assert one.defaults == point({"lr": 0})  # `p` matters where lr is 2
    worst = pytest.approx(0.15 / 3)
    assert one.gaps == {
        point({"lr": 0}): worst,
        point({"lr": 1}): pytest.approx(0.03 / 3),
        point({"lr": 2, "p": 2}): worst,
    }
    assert one.noise == pytest.approx(0.06 / 3)
    assert one.fixed == {"epochs": 2}


def test_without_a_menu_the_search_is_read_on_its_own_seeds_and_view() -> None:
    records = [
        trial(number, 0, 0.0, phase="search", metrics={"val": views(gap)["test"]})
        for number, gap in enumerate((0.3, 0.7))
    ]
    [one] = landscapes(study(records))
    assert (one.phase, one.seeds, one.noise) == ("search", (0,), 0.0)
    assert list(one.gaps.values()) == [pytest.approx(0.9 / 3), pytest.approx(1.3 / 3)]
    assert landscapes(study([])) == []


def test_a_folder_of_images_is_named_by_its_folder() -> None:
    def named(**data: Any) -> str:
        made = study([])
        line = {**made.line, "definition": {**made.definition, "data": data}}
        return data_name(replace(made, line=line))

    assert named(name="digits", root="~/data/some") == "digits"
    assert named(name="image_folder", root="~/data/cifar10.zip") == "image_folder cifar10"
    assert named(name="image_folder", root="/data/birds/") == "image_folder birds"
