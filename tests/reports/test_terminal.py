"""The methods table for the terminal: it fits 80 columns, whatever the names, and is in colour on a terminal only."""

# ruff: noqa: RUF001 (typographic signs are what is printed)

from __future__ import annotations

import dataclasses
import io

import pytest
from rich.console import Console
from studies import ROOT

from mu.record import read
from reports import load, terminal

DATA = ROOT / "tests" / "data" / "trials.jsonl"


def shown(study: load.RecordedStudy, *, is_terminal: bool = False) -> str:
    text = io.StringIO()
    terminal.show(study, Console(file=text, width=80, force_terminal=is_terminal))
    return text.getvalue()


@pytest.fixture(scope="module")
def study() -> load.RecordedStudy:
    return load.assemble(*read(DATA), {})


def test_it_has_recovery_gap_time_and_words(study: load.RecordedStudy) -> None:
    lines = shown(study).splitlines()
    assert lines[0] == "random10: recovery and time in % of retraining, AvgGap in points"
    assert lines[1].split() == ["method", "recovery", "longer", "AvgGap", "time", "as", "retrained"]
    rows = {line.split()[0]: line.split()[1:] for line in lines[2:8]}
    assert rows["original"] == ["0.0", "18.67", "0", "different"]
    assert rows["retrain"] == ["91.1", "1.67", "100"]
    assert rows["alpha"] == ["79.5", "−10.7", "3.83", "4", "undecided"]
    assert rows["gamma"] == ["failed", "×3"]
    assert rows["delta"] == ["no", "finished", "search", "trial"]
    assert lines[8].startswith("class3: ")


def test_it_fits_eighty_columns_and_prints_names_as_they_are(study: load.RecordedStudy) -> None:
    for name in ("n" * 200, "[bold]red[/bold]", "two\nlines"):
        records = [
            dataclasses.replace(r, method=name if r.method == "alpha" else r.method)
            for r in study.records
        ]
        text = shown(load.assemble({}, records, {}))
        assert max(map(len, text.splitlines())) <= 80
        assert " ".join(name.split())[:15] in text


def test_colours_are_for_terminals(study: load.RecordedStudy) -> None:
    assert "\x1b" not in shown(study)
    assert "\x1b[31mdifferent" in shown(study, is_terminal=True)


def test_nothing_is_printed_before_the_first_run_of_the_report(study: load.RecordedStudy) -> None:
    early = [r for r in study.records if r.phase in ("search", "reference")]
    assert shown(load.assemble(study.line, early, {})) == ""


def test_a_request_with_nothing_to_measure_says_so(study: load.RecordedStudy) -> None:
    near = [
        dataclasses.replace(r, metrics={"test": {**twin.metrics["test"]}})
        if r.method == "original" and r.role == "report"
        else r
        for r in study.records
        for twin in [
            next(
                t
                for t in study.records
                if (t.method, t.forget, t.role) == ("retrain", r.forget, "report")
            )
        ]
    ]
    lines = shown(load.assemble(study.line, near, {})).splitlines()
    assert lines[0].startswith(
        "random10: nothing to measure, doing nothing is as good as retraining"
    )
    assert "recovery" not in lines[1]
