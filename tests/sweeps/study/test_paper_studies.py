"""The studies of the papers' tables: a dry run of each on small files in the original format."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import studies
import tiny_data
import torch

from mu.data import Examples
from sweeps import estimate, preflight
from sweeps.__main__ import main
from sweeps.plan import Plan
from sweeps.study import space, study, yaml_file

NAMES = [name for name in yaml_file.shipped_studies() if name.startswith("papers/")]
FIGURES = (
    "papers/jit_fig4_cifar10",
    "papers/jit_fig7_fig8_cifar100_vgg11",
    "papers/tmu_fig3_cifar10",
)
"""What is printed as a figure only, so that there is nothing to set beside ours."""
CUT = ("papers/ugradsl_table3_celeba", "papers/ugradsl_table3_cifar20")
"""Tables that end before all their methods."""
PEOPLE = {
    1: "Alex Lawther",
    10: "Bill Gates",
    20: "Danielle Panabaker",
    30: "Hugh Jackman",
    40: "Josh Radnor",
}
Roots = Callable[[str], Path]
MEASURE = estimate.seconds_per_sample


@pytest.fixture(scope="module")
def root_of(tmp_path_factory: pytest.TempPathFactory) -> Roots:
    """The folder of a data set, made when it is first asked for."""
    made: dict[str, Path] = {}

    def root(name: str) -> Path:
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            tiny_data.make(name, made[name])
            for number, person in PEOPLE.items() if name == "pins_faces" else ():
                found = next(made[name].rglob(f"pins_Person {number:03}"))
                found.rename(found.with_name(f"pins_{person}"))
        return made[name]

    return root


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _no_measuring(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    """What a step costs is measured in its own test; a large network would take minutes here."""
    monkeypatch.setattr(estimate, "seconds_per_sample", lambda plan: 1e-3)
    monkeypatch.setenv("MUSWEEP_CACHE", str(cache))
    # Only shapes are looked at here; random numbers for large networks would take most of the time.
    for name in ("normal_", "uniform_"):
        monkeypatch.setattr(torch.Tensor, name, lambda tensor, *_, **__: tensor.zero_())


def small(name: str, root_of: Roots) -> list[str]:
    """Overrides that make a study fit the small files."""
    wanted = studies.shipped(name)
    changes = [f"data.root={root_of(wanted.data.name)}"]
    if not wanted.data.twin:
        changes.append("data.val=0.4")  # so that each class has some
    else:
        changes.append("data.twin=0.3")
    for key, request in wanted.forget.items():
        if request.count is not None:
            changes.append(f"forget.{key}.count=1")
        if request.fraction is not None and request.fraction < 0.05:
            changes.append(f"forget.{key}.fraction=0.05")
    return [text for change in changes for text in ("-o", change)]


@pytest.mark.parametrize("name", NAMES)
def test_a_papers_study_would_run(
    name: str, root_of: Roots, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", name, "--dry-run", *small(name, root_of)]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"{name.removeprefix('papers/')}: ")


def test_the_cost_of_a_large_network_is_measured_on_few_samples(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    wanted = study.parse(studies.tiny(), "study.yaml")
    plan = Plan(wanted, preflight.load_data(wanted, "study.yaml"))
    seen: list[int] = []
    clock, setting_up, each = 0.0, 0.0, 0.0

    def train(model: object, part: Examples, *_: object) -> Iterator[None]:
        nonlocal clock
        clock += each * len(part) + (0.0 if seen else setting_up)
        seen.append(len(part))
        yield

    monkeypatch.setattr(estimate, "train", train)
    monkeypatch.setattr(estimate.time, "perf_counter", lambda: clock)
    for *costs, expected in (
        (0.0, 1e-3, [8, 270, 270]),
        (0.0, 10.0, [8, 8]),
        (60.0, 1e-3, [8, 8, 270, 270]),
        (0.0, 0.1, [8, 64]),  # one step of a whole batch
        (0.0, 0.5, [8, 8, 40]),  # as much of it as can be waited for
    ):
        seen.clear()
        setting_up, each = costs
        assert MEASURE(plan) == pytest.approx(each)
        assert seen == expected


@pytest.mark.parametrize("name", NAMES)
def test_its_published_numbers_are_attached(name: str) -> None:
    wanted = studies.shipped(name)
    assert bool(wanted.published) == (name not in FIGURES)
    used = {tuned.name for tuned in wanted.methods}
    printed = {row.ours for row in wanted.published} - {None, "original", "retrain"}
    whole = name not in (*FIGURES, *CUT)
    assert used <= printed or not whole, "a method of the study is in none of its tables"
    for row in wanted.published:
        assert row.forget in (*wanted.forget, "*")
        if row.phase == "transfer":
            assert (row.source, row.forget) in wanted.experiments.transfer
        if row.phase == "sufficient":
            assert wanted.experiments.sufficient == {"epochs": 20}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in FIGURES])
def test_every_row_of_a_grid_is_searched(name: str) -> None:
    """What a table prints over its knobs is on the grid, so that no row stays without ours."""
    wanted = studies.shipped(name)
    if wanted.search.sampler != "grid":
        assert not any(row.knobs for row in wanted.published)
        return
    points = {tuned.name: space.grid(tuned.ranges, tuned.fixed) for tuned in wanted.methods}
    for row in wanted.published:
        if row.knobs and row.ours in points:
            near = [
                point
                for point in points[row.ours]
                if all(_same(point[knob], value) for knob, value in row.knobs.items())
            ]
            assert near, (row.ours, row.knobs)


def _same(one: object, other: object) -> bool:
    if isinstance(one, float) and isinstance(other, (int, float)):
        return one == pytest.approx(other)
    return one == other
