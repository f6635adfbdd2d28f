"""Python's way in: what the packages offer, and the notebook that shows it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import nbformat
import pytest
import studies
import torch
from imports import imported_by
from nbclient import NotebookClient

import sweeps
from sweeps.errors import StudyError

NOTEBOOK = studies.ROOT / "examples" / "quickstart.ipynb"
DOCS = studies.ROOT / "docs" / "python.md"


def test_both_packages_are_light_until_a_name_is_used() -> None:
    heavy = ["torch", "pydantic", "ray", "mlflow", "optuna", "pandas", "numpy"]
    assert imported_by(["mu", "sweeps"], heavy) == ""
    assert {"Options", "Result", "load_study", "run"} <= set(sweeps.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'rum'"):
        sweeps.rum  # noqa: B018


def test_names_stay_those_of_the_package_when_everything_is_imported() -> None:
    script = """
        import sweeps, sweeps.__main__, sweeps.launch, sweeps.flow.sweep, sweeps.api, mu, mu.unlearning, sweeps.unlearned.unlearn
        assert callable(sweeps.run) and callable(sweeps.load_study) and callable(mu.unlearn)
    """
    asked = [sys.executable, "-c", textwrap.dedent(script)]
    subprocess.run(asked, check=True, env=studies.environment(), timeout=studies.LIMIT_SECONDS)


def test_a_study_is_read_from_a_file_or_a_dict(tmp_path: Path) -> None:
    path = studies.write(tmp_path, studies.tiny())
    raw = studies.tiny()
    one = sweeps.load_study(path, ["search.trials=7"])
    two = sweeps.load_study(raw, ["search.trials=7"])
    assert one.definition == two.definition and one.search.trials == 7
    assert raw == studies.tiny()
    assert sweeps.load_study("demo").name == "demo"
    with pytest.raises(StudyError, match="study: methods: unknown method 'gaa'"):
        sweeps.load_study(studies.tiny(methods=["gaa"]))
    with pytest.raises(StudyError, match=r"trials\.jsonl: there is no such file"):
        sweeps.Result(tmp_path).summary()


@pytest.mark.slow
@pytest.mark.fault
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in studies.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    shutil.copy(NOTEBOOK, tmp_path)
    book = nbformat.read(tmp_path / NOTEBOOK.name, as_version=4)
    nbformat.validate(book)
    places = {"metadata": {"path": str(tmp_path)}}
    NotebookClient(
        book, timeout=studies.LIMIT_SECONDS, kernel_name="python3", resources=places
    ).execute()
    printed = "".join(
        output.get("text", "") for cell in book.cells for output in cell.get("outputs", [])
    )
    recovery = float(printed.split("recovery ")[1].split()[0])
    assert 0.5 < recovery <= 1
    assert (tmp_path / "results" / "quickstart" / "report" / "index.html").is_file()
    assert float(printed.rpartition("still calls threes: ")[2].split()[0]) < 0.5


def test_the_notebook_is_kept_without_what_it_printed() -> None:
    book = nbformat.read(NOTEBOOK, as_version=4)
    assert all(not cell.get("outputs") for cell in book.cells)
    assert os.sep + "tmp" not in NOTEBOOK.read_text(encoding="utf-8")


def test_the_page_on_python_runs_as_it_stands() -> None:
    """Its first block needs nothing but torch: it is run, the others name what exists."""
    text = DOCS.read_text(encoding="utf-8")
    first = text.split("```python\n")[1].split("```")[0]
    names: dict[str, Any] = {}
    exec(compile(first, str(DOCS), "exec"), names)
    assert isinstance(names["unlearned"], torch.nn.Module) and "gap" in names["seen"]
