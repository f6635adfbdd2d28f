"""Several studies on one page: recoveries of methods x studies, rank correlations, and what is refused."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

import pandas as pd
import pytest
import studies as command_line

from mu.record import to_line, trial_line, write
from reports import compare, load
from tests.reports.test_robustness import small_lines

Gaps = Mapping[str, float]


def saved(folder: Path, gaps: Gaps, name: str = "small", whole_class: bool = False) -> Path:
    """A study whose methods have these gaps of forget accuracy with tuned knobs, and a third more with default ones."""
    cells = {
        (phase, forget, method, None): gap * (1 if phase == "confirm" else 4 / 3)
        for method, gap in gaps.items()
        for phase, forget in itertools.product(("confirm", "default"), ("near", "far"))
    }
    line, records = small_lines(cells, experiments={"transfer": []})
    line |= {"study": name, "data": {"name": "digits"}, "uuid": str(folder)}
    line["definition"]["model"] = {"name": "small_cnn"}
    line["requests"] = {r: {"kind": "random", "whole_class": whole_class} for r in ("near", "far")}
    folder.mkdir(parents=True)
    write(folder / "trials.jsonl", [to_line("study", line), *map(trial_line, records)])
    return folder


@pytest.fixture
def three(tmp_path: Path) -> list[Path]:
    gaps: list[Gaps] = [
        {"a": 0.02, "b": 0.04, "c": 0.06},
        {"a": 0.04, "b": 0.02, "c": 0.06, "d": 0.01},
        {"a": 0.02, "b": 0.04},
    ]
    return [saved(tmp_path / f"s{n}", each, f"study{n}") for n, each in enumerate(gaps)]


def test_recoveries_of_methods_and_studies(three: list[Path]) -> None:
    frame = compare.recoveries(compare.read(three))
    tuned = frame[frame["kind"] == "tuned"].pivot(
        index="method", columns="study", values="recovery"
    )
    # Doing nothing is 8 points off in forget accuracy.
    assert tuned.loc["a"].tolist() == pytest.approx([0.75, 0.5, 0.75])
    assert tuned.loc["d", "study1"] == pytest.approx(1 - 1 / 8)
    assert tuned.loc["d", ["study0", "study2"]].isna().all()
    default = frame[(frame["kind"] == "default") & (frame["method"] == "a")]
    assert default["recovery"].tolist() == pytest.approx([1 - 1 / 3, 1 - 2 / 3, 1 - 1 / 3])
    assert set(frame["data"]) == {"digits"} and set(frame["model"]) == {"small_cnn"}


def test_tables_have_means_the_least_and_rank_correlations(three: list[Path]) -> None:
    tables = {t.name: t for t in compare.all_tables(compare.read(three))}
    rows = {row[0].text: [c.text for c in row[1:]] for row in tables["recovery"].groups[0].rows}
    assert rows["a"] == [
        *("75.0 [75.0, 75.0]", "50.0 [50.0, 50.0]", "75.0 [75.0, 75.0]"),
        *("66.7 [66.7, 66.7]", "50.0"),
    ]
    assert rows["c"][2:] == ["–", "25.0 [25.0, 25.0] [2 of 3]", "25.0"]  # noqa: RUF001
    ranks = {
        (row[0].text, row[1].text): [c.text for c in row[2:]]
        for row in tables["rank_correlations"].groups[0].rows
    }
    assert ranks == {
        ("study0", "study1"): ["0.33", "3"],
        ("study0", "study2"): ["1.00", "2"],
        ("study1", "study2"): ["−1.00", "2"],  # noqa: RUF001
    }


def test_page_and_files_are_written(three: list[Path], tmp_path: Path) -> None:
    page = compare.build(three, tmp_path / "out")
    text = page.read_text(encoding="utf-8")
    for said in ("3 studies compared", "study0, study1, study2", "66.7", "rank_correlations.csv"):
        assert said in text
    assert "http" not in text
    names = {path.name for path in (tmp_path / "out" / "tables").iterdir()}
    tables = ("studies", "recovery", "rank_correlations")
    assert names == {"recoveries.csv", *(f"{t}.{s}" for t in tables for s in ("csv", "md", "tex"))}
    assert len(pd.read_csv(tmp_path / "out" / "tables" / "recoveries.csv")) == 9 * 3
    assert compare.build(three[:2], tmp_path / "out") == page


def test_names_that_two_studies_share_are_told_apart(tmp_path: Path) -> None:
    folders = [saved(tmp_path / n, {"a": 0.02}, "same") for n in ("one", "two")]
    assert list(compare.read(folders)) == ["same", f"same ({folders[1]})"]


def test_what_cannot_be_compared_is_refused_by_name(three: list[Path], tmp_path: Path) -> None:
    other = saved(tmp_path / "classes", {"a": 0.02}, "classes", whole_class=True)
    strange = saved(tmp_path / "strange", {"z": 0.02}, "strange")
    old = tmp_path / "old"
    old.mkdir()
    (old / "trials.jsonl").write_text('{"kind": "study", "schema": 1}\n')
    copy = tmp_path / "copy"
    copy.mkdir()
    (copy / "trials.jsonl").write_bytes((three[0] / "trials.jsonl").read_bytes())
    for folders, said in (
        (three[:1], "two results folders at least"),
        ([three[0], three[0]], "s0: is the same study as .*s0"),
        ([three[0], copy], "copy: is the same study as .*s0"),
        ([three[0], other], "study0 and classes: AvgGap is over other metrics"),
        ([*three, strange], "study0, study1, study2, strange: have no method in common"),
        ([three[0], old], r"old/trials.jsonl:1: was written by musweep 0\.1"),
        ([three[0], tmp_path / "none"], r"none/trials.jsonl: there is no such file"),
    ):
        with pytest.raises(ValueError, match=said):
            compare.build(folders, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_command_says_where_the_page_is_or_what_is_wrong(
    three: list[Path], tmp_path: Path
) -> None:
    ended = command_line.here(tmp_path, "compare", *map(str, three))
    assert (ended.returncode, ended.stdout.strip()) == (0, str(tmp_path / "comparison/index.html"))
    ended = command_line.here(tmp_path, "compare", str(three[0]))
    assert ended.returncode == 2
    assert "two results folders" in ended.stderr


def test_a_method_that_lacks_a_part_has_no_untuned_recovery(tmp_path: Path) -> None:
    folders = [saved(tmp_path / n, {"a": 0.02, "b": 0.03}, n) for n in ("one", "two")]
    studies = dict(compare.read(folders))
    one = studies["one"]
    fewer = [r for r in one.records if (r.phase, r.method) != ("default", "b")]
    studies["one"] = load.assemble(one.line, fewer, {})
    frame = compare.recoveries(studies)
    untuned = frame[(frame["kind"] == "untuned") & (frame["study"] == "one")]
    assert untuned["method"].tolist() == ["a"]
