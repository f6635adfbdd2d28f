"""Printed tables: under our names and in our units, and beside a study's own numbers in its report."""

# ruff: noqa: RUF001 (typographic signs are what tables hold)

from __future__ import annotations

import copy
import csv
from pathlib import Path
from typing import Any

import pytest
import studies
from studies import ROOT

from mu.record import TrialRecord, read
from reports import load
from reports.statistics.intervals import Spread
from reports.tables import files
from reports.tables import published as report
from sweeps import preflight
from sweeps.errors import StudyError
from sweeps.plan import Plan
from sweeps.plan.study_line import study_line
from sweeps.study import published, study

DATA = ROOT / "tests" / "data"
STUDIES = ROOT / "sweeps" / "studies" / "papers"
NOT_OURS = {"GLI", "UGradSL (Adp)", "UGradSL+ (Adp)"}
"""Methods of the tables that we do not have, or have as variants of others."""
NOT_MEASURED = {"total score", "ACC_Dtest(classifier)"}
"""Columns that no single metric of ours is."""
ROWS = """paper,table,setting,dataset,model,method,metric,mean,std,gap,note
NatMU,9,some,A,m,Finetune,RA,91.00,1.50,,
NatMU,9,some,A,m,Finetune,FA,95.00,,,
NatMU,9,some,B,m,Finetune,RA,12.00,,,
NatMU,9,whole,A,m,Finetune,RA,90.00,0.50,,
NatMU,9,some; lr=0.1,A,m,JiT,RA,88.00,0.50,,printed twice
NatMU,9,some; lr=1e-3,A,m,JiT,RA,89.00,0.50,,
"""


def own(folder: Path, **changes: Any) -> dict[str, Any]:
    """The tiny study with a printed table beside its file."""
    (folder / "table.csv").write_text(ROWS)
    entry = {"table": "table.csv", "settings": {"some": "some"}, "where": {"dataset": "A"}}
    return studies.tiny(published=[entry | changes])


def test_every_printed_method_and_metric_has_a_name_of_ours_or_is_known_to_have_none() -> None:
    assert len(published.shipped()) == 53
    for name, path in published.shipped().items():
        with path.open(newline="") as lines:
            for row in csv.DictReader(lines):
                whole = "class" in row["setting"] and "random" not in row["setting"]
                metric = published.our_metric(row["paper"], row["table"], row["metric"], whole)
                assert (metric is None) == (row["metric"] in NOT_MEASURED), (name, row)
                if not row["method"].startswith("TMU["):
                    method = published.our_method(row["method"])
                    assert (method is None) == (row["method"] in NOT_OURS), (name, row)


@pytest.mark.parametrize(
    ("paper", "table", "metric", "whole_class", "expected"),
    [
        ("NatMU", "3", "RA", False, "acc_test"),
        ("NatMU", "1", "RA", True, "acc_test_retain"),
        ("UGradSL", "1", "RA", True, "acc_retain"),
        ("Akbari", "2", "RA", False, "acc_retain"),
        ("Akbari", "2", "UA", False, "acc_forget"),
        ("UGradSL", "2", "UA", False, "err_forget"),
        ("UGradSL", "2", "TA", False, "acc_test"),
        ("UGradSL", "1", "TA", True, "acc_test_retain"),
        ("UGradSL", "4", "AvgGap", False, "avg_gap_ugradsl5"),
        ("UGradSL", "2", "AvgGap", False, "avg_gap_ugradsl"),
        ("JiT", "2a", "Df_acc", True, "acc_test_forget"),
        ("JiT", "4a", "Df_acc", False, "acc_forget"),
        ("NatMU", "A1", "AvgChange", False, "avg_change"),
        ("Akbari", "1", "MIA_confidence", False, "mia_svc_chunked_conf_nonmember"),
    ],
)
def test_the_same_letters_mean_what_their_paper_says(
    paper: str, table: str, metric: str, whole_class: bool, expected: str
) -> None:
    assert published.our_metric(paper, table, metric, whole_class) == expected


def test_a_table_beside_the_study_is_read_in_our_units(tmp_path: Path) -> None:
    path = studies.write(tmp_path, own(tmp_path, settings={"some": "some", "three": "whole"}))
    wanted = study.read(path)
    first, second, third = wanted.published
    assert (first.forget, first.ours, first.name) == ("some", "finetune", "acc_test")
    assert (first.mean, first.std, first.phase, first.knobs) == (0.91, 0.015, "confirm", {})
    assert (second.name, second.std) == ("acc_forget", None)
    assert (third.forget, third.name) == ("three", "acc_test_retain")
    again = study.parse(wanted.definition, "elsewhere/study.yaml")
    assert again.published == wanted.published
    line = study_line(Plan(wanted, preflight.load_data(wanted, "x")))
    assert line["published"][0]["mean"] == 0.91


def test_knobs_in_a_setting_give_every_searched_configuration_its_rows(tmp_path: Path) -> None:
    path = studies.write(tmp_path, own(tmp_path, settings={"some": "some; lr={lr}"}))
    rows = study.read(path).published
    assert [(row.knobs, row.phase, row.note) for row in rows] == [
        ({"lr": 0.1}, "search", "printed twice"),
        ({"lr": 1e-3}, "search", ""),
    ]


def test_seconds_and_names_can_be_told(tmp_path: Path) -> None:
    changes = {"methods": {"Finetune": "jit"}, "metrics": {"RA": "acc_retain"}}
    path = studies.write(tmp_path, own(tmp_path, **changes))
    assert {(row.ours, row.name) for row in study.read(path).published} == {
        ("jit", "acc_retain"),
        ("jit", "acc_forget"),
    }
    raw = studies.tiny(
        published=[
            {
                "table": "ugradsl_table10",
                "settings": {"some": "random forgetting 10%"},
                "where": {"dataset": "CIFAR-10", "metric": "RTE_min", "method": "FT"},
            }
        ]
    )
    (cost,) = study.read(studies.write(tmp_path, raw)).published
    assert (cost.name, cost.mean) == ("time_unlearn", pytest.approx(60 * 1.58, abs=60))


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"table": "natmu_table0"},
            "published: 1: natmu_table0: no such table 'natmu_table0'; give",
        ),
        ({"settings": {"all": "some"}}, "settings: unknown request 'all'; there are some, three"),
        ({"settings": {"some": "few"}}, "some: no rows of 'few', dataset 'A'; there are 'some'"),
        (
            {"settings": {"some": "x={x}"}},
            "some: {x} is no searched knob; there are lr, weight_decay, ",
        ),
        ({"settings": {}}, "settings: must not be empty, but got {}"),
        ({"where": {"data": "A"}}, "where: must be one of paper"),
        ({"phase": "reference"}, "phase: must be one of search, finalist, menu, default"),
        ({"phase": "transfer"}, "`source` belongs to the phase transfer"),
        ({"metrics": {"RA": "accuracy"}}, "metrics: RA: must be one of "),
        ({"setting": "x"}, "published: 1: unknown key `setting`; allowed are table, settings"),
    ],
)
def test_a_wrong_table_is_told_before_anything_runs(
    tmp_path: Path, changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(StudyError) as error:
        study.read(studies.write(tmp_path, own(tmp_path, **changes)))
    assert expected in str(error.value)


def test_a_broken_table_names_its_line(tmp_path: Path) -> None:
    path = studies.write(tmp_path, own(tmp_path))
    (tmp_path / "table.csv").write_text(ROWS.replace("95.00", "95%"))
    with pytest.raises(StudyError, match=r"table\.csv:3: mean must be a number"):
        study.read(path)
    (tmp_path / "table.csv").write_text("paper,method\n")
    with pytest.raises(StudyError, match="no column `table`"):
        study.read(path)


def entry(**changes: Any) -> dict[str, Any]:
    """A printed number as a study's line has it."""
    return {
        **{"paper": "NatMU", "table": "3", "forget": "random10", "phase": "confirm"},
        **{"source": None, "knobs": {}, "method": "Alpha", "metric": "RA", "ours": "alpha"},
        **{"name": "acc_test", "mean": 0.91, "std": 0.002, "note": ""},
    } | changes


def rows(*entries: dict[str, Any]) -> dict[tuple[str, str], list[str]]:
    """(method, metric) to the other cells of the table of the small study with these entries."""
    table = report.published(small(*entries))
    assert table is not None
    return {
        (row[0].text, row[1].text): [cell.text for cell in row[2:]]
        for group in table.groups
        for row in group.rows
    }


def small(*entries: dict[str, Any]) -> load.RecordedStudy:
    line, records = read(DATA / "trials.jsonl")
    return load.assemble({**copy.deepcopy(line), "published": list(entries)}, records, {})


def test_a_study_without_printed_tables_has_no_such_table() -> None:
    assert report.published(small()) is None


def test_ours_stands_beside_theirs_with_the_difference() -> None:
    found = rows(
        entry(),
        entry(metric="FA", name="acc_forget", mean=0.99, std=0.01),
        entry(metric="MIA", name="mia_lr_entropy", mean=0.40, std=0.05),
        entry(metric="AvgGap", name="avg_gap_natmu", mean=0.01, std=None),
        entry(method="Retrain", ours="retrain", mean=0.9, std=0.01),
    )
    assert found["alpha", "Test accuracy (RA)"] == [
        "91.00 ± 0.20",
        "90.50 ± 1.00 [n=3]",
        "−0.50",
        "ours",
    ]
    assert found["alpha", "Forget accuracy (FA)"][2:] == ["−4.00", "ours"]
    assert found["alpha", "MIA (entropy, member rate) (MIA)"][2:] == ["+5.00", "both"]
    # |0.905 - 0.91|, |0.95 - 0.9| and |0.45 - 0.51| of the means, not the mean of the runs' gaps
    assert found["alpha", "AvgGap"] == ["1.00", "3.83 [n=3]", "+2.83", "–"]
    assert found["retrain", "Test accuracy (RA)"][1] == "91.00 ± 1.00 [n=3]"


def test_what_is_missing_on_one_side_is_a_dash_or_a_reason_and_no_number() -> None:
    found = rows(
        entry(mean=None, std=None),
        entry(method="GLI", ours=None, mean=0.5),
        entry(method="SSD", ours="ssd", mean=0.5),
        entry(method="Gamma", ours="gamma"),
        entry(metric="total score", name=None, mean=0.488, std=None),
        entry(metric="TA", name="zrf"),
    )
    ra = "Test accuracy (RA)"
    assert found["alpha", ra] == ["–", "90.50 ± 1.00 [n=3]", "–", "–"]
    assert found["GLI", ra] == ["50.00 ± 0.20", "–", "–", "–"]
    assert found["ssd", ra][1:] == ["–", "–", "–"]
    assert found["gamma", ra][1:] == ["failed ×3", "–", "–"]
    assert found["alpha", "total score"] == ["0.488", "–", "–", "–"]
    assert found["alpha", "Zero-retrain forgetting (TA)"][1:] == ["–", "–", "–"]
    # beta is ours alone: it comes with the table's metrics, and lost a seed.
    assert found["beta", ra] == ["–", "81.00 ± 1.41 [n=2]", "–", "–"]


def test_phases_are_kept_apart() -> None:
    moved = {"phase": "transfer", "source": "class3"}
    found = rows(
        entry(),
        entry(phase="sufficient", method="Alpha, 20 epochs"),
        entry(**moved, method="Alpha, moved"),
        entry(**moved, method="Alpha, moved", metric="AvgChange", name="avg_change", std=None),
    )
    assert found["alpha (Alpha, 20 epochs)", "Test accuracy (RA)"][1].startswith("89.00")
    assert found["alpha (Alpha, moved)", "Test accuracy (RA)"][1].startswith("90.00")
    # |0.90 - 0.905|, |0.95 - 0.95| and |0.46 - 0.45|
    assert found["alpha (Alpha, moved)", "AvgChange"][1] == "0.50 [n=3]"


def test_the_mean_over_requests_is_formed_for_each_seed() -> None:
    found = rows(entry(forget="*", name="acc_forget", metric="FA", mean=0.5, std=None))
    # seeds 1 to 3: (0.90 + 0) / 2, (0.95 + 0.03) / 2 and (1.00 + 0.06) / 2
    assert found["alpha", "Forget accuracy (FA)"][1] == "49.00 ± 4.00 [n=3]"


def test_searched_configurations_are_found_by_their_knobs() -> None:
    line, records = read(DATA / "trials.jsonl")
    tried = [
        TrialRecord(
            **{"key": f"{lr}/{seed}", "study": "tiny", "phase": "search", "forget": "random10"},
            **{"method": "alpha", "seed": seed, "status": "finished", "number": 10 + position},
            knobs={"lr": lr, "epochs": 5},
            metrics={"val": {"acc_test": value}},
        )
        for position, lr in enumerate((0.1, 0.2))
        for seed, value in ((1, 0.5 + lr), (2, 0.6 + lr))
    ]
    whole = load.assemble(line, [*records, *tried], {})
    assert report.beside(whole, entry(phase="search", knobs={"lr": 0.1})) == Spread(
        pytest.approx(0.65), pytest.approx(0.1 / 2**0.5), 2
    )
    assert report.beside(whole, entry(phase="search", knobs={"lr": 0.3})) == "not run"


def test_doubts_are_flagged_and_written_out() -> None:
    entries = [
        entry(note="Table 7 prints 90.1"),
        *(entry(method=f"M{n}", ours=None, note="a gap") for n in range(4)),
    ]
    table = report.published(small(*entries))
    assert table is not None
    assert table.groups[0].rows[0][2].text == "91.00 ± 0.20¶"
    assert table.notes == [
        "¶ there is a remark on the printed number",
        "¶ 3 random10 Alpha RA: Table 7 prints 90.1",
        "¶ 4 cells: a gap",
    ]
    assert r"0.20\P{}" in files.to_latex(table)
    printed = files.table_frame(table).iloc[0]
    assert (printed["Published"], printed["Published std"]) == pytest.approx((0.91, 0.002))
    assert printed["Published note"] == "there is a remark on the printed number"


def test_ours_has_the_standard_deviation_that_the_paper_prints() -> None:
    """NatMU prints the population's: 0.82 for three runs whose sample has 1.00, so that a difference of 0.9 is outside."""
    at = {"mean": 0.914, "std": 0.02}
    assert rows(entry(**at))["alpha", "Test accuracy (RA)"][1:] == [
        "90.50 ± 1.00 [n=3]",
        "−0.90",
        "both",
    ]
    assert rows(entry(**at, deviation="population"))["alpha", "Test accuracy (RA)"][1:] == [
        "90.50 ± 0.82 [n=3]",
        "−0.90",
        "theirs",
    ]


def test_which_standard_deviation_a_table_prints_follows_from_its_paper_or_the_study() -> None:
    path = STUDIES / "natmu_table1_cifar100.yaml"
    assert {number.deviation for number in study.read(path).published} == {"population"}
    path = STUDIES / "jit_table2a_cifar100_vit.yaml"
    assert {number.deviation for number in study.read(path).published} == {"sample"}


def test_group_forgetting_of_ugradsl_keeps_the_test_set_whole() -> None:
    """Its TA and AvgGap are those of requests for samples."""
    wanted = study.read(STUDIES / "ugradsl_table3_cifar20.yaml")
    assert not wanted.forget["fish"].splits_held_out
    names = {number.metric: number.name for number in wanted.published}
    assert names["TA"] == "acc_test"
