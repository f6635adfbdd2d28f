"""``musweep portfolio``: from results folders to search spaces that have portfolios."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import studies
import yaml

from mu.record import TrialRecord, to_line, trial_line, write
from sweeps import portfolio
from sweeps.__main__ import main
from sweeps.study import study

GAPS = {0.02: 0.4, 0.03: 0.1, 0.0501234: 0.2, 0.09: 0.3}
"""Learning rate to how far forget accuracy is off; the first is the authors'."""


def menu(folder: Path, name: str = "a", uuid: str = "u1", **changes: Any) -> Path:
    """A results folder with the menu of `finetune` on two requests."""
    raw = studies.tiny(
        study=name,
        methods=[{"name": "finetune", "fix": {"epochs": 2, "weight_decay": 0.0}}],
        **changes,
    )
    definition = study.parse(raw, "study.yaml").definition
    fixed = definition["methods"][0]["fix"]
    records = []
    for forget in definition["forget"]:
        for seed in (1, 2):
            records.append(record(forget, "retrain", seed, 0.0, phase="reference", role="report"))
            records += [
                record(forget, "finetune", seed, gap, number=n, knobs={**fixed, "lr": rate},
                       phase="menu", origin="" if n else "defaults")
                for n, (rate, gap) in enumerate(GAPS.items())
            ]  # fmt: skip
    out = folder / name
    out.mkdir()
    line = to_line("study", {"study": name, "uuid": uuid, "definition": definition})
    write(out / "trials.jsonl", [line, *map(trial_line, records)])
    return out


def record(forget: str, method: str, seed: int, gap: float, **fields: Any) -> TrialRecord:
    values = {"acc_test": 0.8, "acc_forget": 0.5 + gap, "mia_lr_entropy": 0.6}
    values |= {"acc_test_retain": 0.8, "acc_test_forget": 0.5}
    key = f"{forget}{method}{seed}{fields.get('number')}"
    common = {"study": "a", "status": "finished", "metrics": {"val": values, "test": values}}
    return TrialRecord(
        **{"key": key, "forget": forget, "method": method, "seed": seed, **common, **fields}
    )


def said(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str]:
    code = main(["portfolio", *map(str, words)])
    printed = capsys.readouterr()
    return code, printed.out + printed.err


def test_it_writes_search_spaces_that_a_search_can_start_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, out = menu(tmp_path), tmp_path / "spaces"
    code, text = said(capsys, folder, "--out", out)
    assert code == 0
    assert "finetune: 2 requests of a (digits, small_cnn, menu)" in text
    assert "With one request left out" in text
    assert "No method can be judged with one network left out." in text
    content = yaml.safe_load((out / "finetune.yaml").read_text())
    assert set(content) == {"lr", "weight_decay", "portfolio"}
    known = content["portfolio"]
    assert known["configurations"] == [{"lr": 0.03}]
    assert known["regret"] == [0.0]
    [source] = known["sources"]
    assert (source["uuid"], source["seeds"], source["phase"]) == ("u1", [1, 2], "menu")
    assert source["requests"] == ["some", "three"]
    assert source["fixed"] == {"epochs": 2, "weight_decay": 0.0}
    parsed = study.parse(studies.tiny(search={"start": "portfolio"}), "study.yaml", [out])
    config = parsed.method("finetune")
    assert config.portfolio is not None
    points = config.portfolio.searched(config.fixed, config.ranges)
    assert [point["lr"] for point in points] == [0.03]


def test_another_portfolio_takes_the_place_of_the_first_and_all_else_stays(tmp_path: Path) -> None:
    path = tmp_path / "ga.yaml"
    path.write_text(
        "# why\nlr: {low: 1, high: 2}\nportfolio:\n  a:\n  - b\n\n# more\np: {low: 1}\n"
    )
    portfolio.write(path, None, "portfolio: new\n")
    assert path.read_text() == (
        "# why\nlr: {low: 1, high: 2}\n# more\np: {low: 1}\nportfolio: new\n"
    )
    portfolio.write(path, None, "portfolio: newer\n")
    assert path.read_text().count("portfolio") == 1
    portfolio.write(tmp_path / "own.yaml", None, "portfolio: new\n")
    assert (tmp_path / "own.yaml").read_text() == "portfolio: new\n"


def test_several_studies_are_left_out_one_by_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = menu(tmp_path, "b", "u2", model="slim_vgg")
    code, text = said(capsys, menu(tmp_path), other)
    assert code == 0
    assert "4 requests of a (digits, small_cnn, menu), b (digits, slim_vgg, menu)" in text
    assert "With one network left out" in text


def test_what_is_no_study_is_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = menu(tmp_path)
    for words, message in (
        ([tmp_path], "there is no such file"),
        ([folder, folder], "is given twice"),
        ([folder, "--size", "0"], "--size: must be at least 1, but got 0"),
    ):
        code, text = said(capsys, *words)
        assert code == 2
        assert message in text and text.strip().count("\n") == 0


def test_what_is_outside_the_search_space_that_ships_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    own = tmp_path / "own"
    own.mkdir()
    (own / "finetune.yaml").write_text("lr: {low: 0.01, high: 0.025}\n")
    code, text = said(capsys, menu(tmp_path), "--methods-path", own, "--out", tmp_path / "out")
    assert code == 0
    assert "3 configurations are outside its search space and left out" in text
    assert "nothing but the authors' defaults" in text
    assert not (tmp_path / "out").exists()
