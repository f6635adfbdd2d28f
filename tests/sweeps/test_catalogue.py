"""What `musweep methods`, `musweep studies`, shell completion and the pointers of errors say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mu import methods
from sweeps.__main__ import main
from sweeps.commands.common import DONE, WRONG
from sweeps.errors import page_for
from sweeps.study import yaml_file

ROOT = Path(__file__).parents[2]


def test_each_method_has_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods"]) == DONE
    lines = capsys.readouterr().out.splitlines()
    listed = {line.split()[0]: line for line in lines[1:] if line and "NAME" not in line}
    assert list(listed) == methods.names()
    summary = methods.load("natmu").summary.partition(": ")[2]
    assert listed["natmu"].split(maxsplit=1)[1] == summary


def test_the_list_of_methods_needs_no_torch() -> None:
    code = "import sys; from sweeps.__main__ import main; main(['methods']); assert 'torch' not in sys.modules"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True)


def test_a_method_of_ones_own_is_listed_and_its_broken_file_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text('"""Mine: does nothing."""\n', encoding="utf-8")
    assert main(["methods", "--methods-path", str(tmp_path)]) == DONE
    assert "mine" in capsys.readouterr().out
    (tmp_path / "broken.py").write_text("def :", encoding="utf-8")
    assert main(["methods", "--methods-path", str(tmp_path)]) == WRONG
    assert f"{tmp_path / 'broken.py'}: cannot be read as Python" in capsys.readouterr().err


def test_one_method_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "natmu"]) == DONE
    out = capsys.readouterr().out
    for part in (
        "arXiv:2405.15495",
        "Differs",
        "-0.5 to 0.5",
        "0.0001 to 0.003 log",
        "Added to every mask",
    ):
        assert part in out
    method = methods.load("natmu")
    for knob in method.knobs.values():
        assert knob.name in out and knob.accepts in out


def test_every_method_can_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    for name in methods.names():
        assert main(["methods", name]) == DONE
    assert "Paper" in capsys.readouterr().out


def test_one_method_as_data(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "ga", "--json"]) == DONE
    (content,) = json.loads(capsys.readouterr().out)
    assert content["name"] == "ga"
    assert content["knobs"]["epochs"]["default"] == methods.load("ga").knobs["epochs"].default


def test_an_unknown_method_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["methods", "nat"]) == WRONG
    assert "unknown method 'nat'" in capsys.readouterr().err


def test_studies_say_what_they_are_take_and_lack(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data" / "cifar100").mkdir(parents=True)
    assert main(["studies"]) == DONE
    out = capsys.readouterr().out
    lines = {line.split()[0]: line for line in out.splitlines()[1:] if line}
    assert set(yaml_file.shipped_studies()) <= set(lines)
    assert not any(name.startswith("_") for name in lines), "a base is no study"
    assert "Six methods on real handwritten digits" in lines["demo"]
    assert "(missing)" not in lines["demo"]
    assert "cifar10 (missing)" in lines["papers/natmu_table3_cifar10"]
    assert "(missing)" not in lines["papers/natmu_table1_cifar100"]
    trials, hours = lines["papers/natmu_table3_cifar10"].split()[1:3]
    assert int(trials.replace(",", "")) > 1000 and float(hours) > 1
    assert (
        lines["papers/jit_table1_pins"].split()[2] == "-"
    )  # how many images there are is up to the files


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("musweep sta", "status"),
        ("musweep methods natmu_n", "natmu_nri"),
        ("musweep run dem", "demo"),
    ],
)
def test_a_shell_completes_commands_methods_and_studies(typed: str, offered: str) -> None:
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": typed,
        "COMP_POINT": str(len(typed)),
        "COMP_TYPE": "9",
        "PYTHONPATH": str(ROOT),
    }
    command = f"{sys.executable} -m sweeps 8>&1 9>/dev/null"
    ended = subprocess.run(
        command,
        shell=True,
        env={**os.environ, **asked},
        capture_output=True,
        text=True,
        check=False,
    )
    assert offered in [line.strip() for line in ended.stdout.splitlines()]


@pytest.mark.parametrize(
    ("message", "page"),
    [
        ("s.yaml: data: 5 training images leave none", "docs/data.md"),
        ("s.yaml: search: trials: must be at least 1, but got -1", "docs/study.md"),
        ("s.yaml: methods: natmu: unknown knob `x`", "docs/methods.md"),
        ("data.root: /nowhere does not exist", "docs/data.md"),
        ("--storage s3://x: cannot be written to: no", "docs/operations.md"),
        ("results/x: there is no trials.jsonl", None),
    ],
)
def test_an_error_points_to_the_page_on_its_key(message: str, page: str | None) -> None:
    assert page_for(message) == page
    assert page is None or (ROOT / page).is_file()


def test_the_command_line_shows_the_page(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["run", "demo", "-o", "search.trials=-1"]) == WRONG
    assert capsys.readouterr().err.rstrip().endswith("but got -1 (see docs/study.md)")


def test_a_command_line_without_a_command_shows_them_all(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main([]) == WRONG
    said = capsys.readouterr().err
    assert "run a study, or continue it" in said and "write a study for your data" in said
