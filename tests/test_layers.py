"""Layers, in fresh interpreters: mu stands alone, and what the report needs is free of torch."""

from __future__ import annotations

import pkgutil
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

import mu

ROOT = Path(mu.__file__).parents[1]
FOREIGN = ("ray", "mlflow", "optuna", "yaml", "sweeps", "reports", "search_spaces")
TORCH_FREE = ("mu", "mu.keys", "mu.metrics", "mu.attacks", "mu.record", "mu.selection")
MODULES = sorted(module.name for module in pkgutil.walk_packages([str(ROOT / "mu")], prefix="mu."))


def imported_by(modules: Sequence[str], forbidden: Sequence[str]) -> str:
    """Import modules in a fresh interpreter; who asked for which of the forbidden packages, installed or not."""
    script = f"""
        import importlib, sys

        class Watch:
            def find_spec(self, name, path=None, target=None):
                if name.split(".")[0] in {tuple(forbidden)!r}:
                    print(current, "imports", name)
                return None

        sys.meta_path.insert(0, Watch())
        for current in {list(modules)!r}:
            importlib.import_module(current)
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_the_watch_sees_what_is_imported() -> None:
    assert "json imports" not in imported_by(["json"], ["yaml"])
    assert imported_by(["mu.rng"], ["torch"]).startswith("mu.rng imports torch")


def test_mu_imports_no_foreign_system_and_no_higher_layer() -> None:
    assert len(MODULES) > 20
    assert imported_by(MODULES, FOREIGN) == ""


@pytest.mark.parametrize("name", TORCH_FREE)
def test_module_is_free_of_torch(name: str) -> None:
    assert imported_by([name], ["torch", "torchvision", *FOREIGN]) == ""


def test_importing_the_package_imports_nothing() -> None:
    assert imported_by(["mu"], ["numpy", "torch", "sklearn", "PIL"]) == ""
