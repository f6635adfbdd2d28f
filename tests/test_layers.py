"""Layers, in fresh interpreters: mu stands alone, and what the report needs is free of torch."""

from __future__ import annotations

import pkgutil

from imports import imported_by
from studies import ROOT

FOREIGN = ("ray", "mlflow", "optuna", "yaml", "sweeps", "reports", "search_spaces")
TORCH_FREE = (
    "mu",
    "mu.keys",
    "mu.metrics.basic",
    "mu.metrics.attacks",
    "mu.record",
    "mu.selection",
)
START = (
    "sweeps.__main__",
    "sweeps.state.results",
    "sweeps.tracking.status",
    "sweeps.tracking.mlflow",
)
"""What the commands import that only read, and ``run`` before it has read the study."""
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(ROOT / "mu")], prefix="mu."))


def test_the_watch_sees_what_is_imported() -> None:
    assert "json imports" not in imported_by(["json"], ["yaml"])
    assert imported_by(["mu.rng"], ["torch"]).startswith("mu.rng imports torch")


def test_mu_imports_no_foreign_system_and_no_higher_layer() -> None:
    assert len(MODULES) > 20
    assert imported_by(MODULES, FOREIGN) == ""


def test_modules_are_free_of_torch() -> None:
    assert imported_by(TORCH_FREE, ["torch", "torchvision", *FOREIGN]) == ""


def test_importing_the_package_imports_nothing() -> None:
    assert imported_by(["mu"], ["numpy", "torch", "sklearn", "PIL"]) == ""


def test_the_start_of_the_command_line_is_light() -> None:
    assert imported_by(START, ["torch", "pydantic", "ray", "mlflow", "optuna", "sklearn"]) == ""


def test_a_run_imports_what_only_some_studies_need_when_they_need_it() -> None:
    assert (
        imported_by(["sweeps.launch"], ["scipy", "sklearn", "sqlalchemy", "mlflow", "pandas"]) == ""
    )
