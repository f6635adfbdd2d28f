"""The code keeps its functions and files small, and documents what others use."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest
from studies import ROOT
from style import Function, long_functions, long_signatures, modules, undocumented

PRODUCT = ("mu", "reports", "sweeps")
PACKAGES = (*PRODUCT, "benchmarks", "docs", "examples", "tests")


def has_knobs(path: Path, function: Function) -> bool:
    """Return whether a function's keyword-only parameters are the knobs of a method."""
    return function.name == "unlearn"


@pytest.mark.parametrize("package", ["mu", "sweeps"])
def test_public_functions_and_classes_have_docstrings(package: str) -> None:
    assert undocumented(ROOT / package) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_is_long(package: str) -> None:
    assert long_functions(ROOT / package) == []


@pytest.mark.parametrize("package", PACKAGES)
def test_no_function_has_many_parameters(package: str) -> None:
    assert long_signatures(ROOT / package, knobs=has_knobs) == []


def test_half_of_the_files_have_at_most_140_lines() -> None:
    lengths = [
        len(path.read_text(encoding="utf-8").splitlines())
        for package in PRODUCT
        for path, _ in modules(ROOT / package)
        if path.name != "__init__.py"
    ]
    assert len(lengths) > 100
    assert statistics.median(lengths) <= 140
