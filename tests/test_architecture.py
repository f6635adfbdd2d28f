"""The layers, computed from every import statement: no circle, and no import of a higher layer by a lower one."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from studies import ROOT

PACKAGES = ("mu", "reports", "search_spaces", "sweeps")
LAYERS = (
    ("mu", "search_spaces"),
    ("reports",),
    ("sweeps.errors", "sweeps.phases"),
    ("sweeps.study",),
    ("sweeps.state",),
    ("sweeps.plan",),
    ("sweeps.search", "sweeps.workers", "sweeps.tracking"),
    ("sweeps.flow", "sweeps.preflight", "sweeps.estimate"),
    ("sweeps.unlearned", "sweeps.choosing", "sweeps.portfolio"),
    ("sweeps.api", "sweeps.launch"),
    ("sweeps.catalogue", "sweeps.first_study"),
    ("sweeps.commands",),
    ("sweeps.__main__",),
    ("sweeps.submit",),
)
"""From the lowest to the highest; a layer may import itself and all before it."""
FREE = ("sweeps", "sweeps.studies")
"""Packages that hold nothing to import."""


@cache
def modules() -> dict[str, Path]:
    """Every module of the product by its name."""
    paths = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
        for path in paths
    }


def imported(path: Path) -> Iterator[str]:
    """The modules of the product that a file imports anywhere in it, for types only as well."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            known = name if name in modules() else name.rpartition(".")[0]
            if known in modules():
                yield known


@cache
def arrows() -> dict[str, set[str]]:
    """Module to the modules that it imports."""
    return {name: set(imported(path)) - {name} for name, path in modules().items()}


def layer(module: str) -> int:
    """Position of a module's layer in ``LAYERS``."""
    places = [
        position
        for position, names in enumerate(LAYERS)
        if any(module == name or module.startswith(f"{name}.") for name in names)
    ]
    assert len(places) == 1, f"{module} is in {len(places)} layers"
    return places[0]


def circle(graph: dict[str, set[str]]) -> list[str]:
    """A circle of imports; empty where there is none."""
    done: set[str] = set()

    def visit(module: str, path: list[str]) -> list[str]:
        if module in path:
            return path[path.index(module) :]
        if module in done:
            return []
        for other in sorted(graph[module]):
            if ring := visit(other, [*path, module]):
                return ring
        done.add(module)
        return []

    for module in sorted(graph):
        if ring := visit(module, []):
            return ring
    return []


def test_a_circle_is_found_where_there_is_one() -> None:
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}}) == ["b", "c"]
    assert circle({"a": {"b", "c"}, "b": {"c"}, "c": set()}) == []


def test_no_imports_go_in_a_circle() -> None:
    assert len(modules()) > 100
    assert circle(arrows()) == []


def test_no_module_imports_a_higher_layer() -> None:
    upward = [
        f"{module} imports {other}"
        for module, others in arrows().items()
        if module not in FREE
        for other in others
        if other not in FREE and layer(other) > layer(module)
    ]
    assert upward == []


def test_search_workers_and_tracking_know_nothing_of_each_other() -> None:
    apart = ("sweeps.search", "sweeps.workers", "sweeps.tracking")
    across = [
        f"{module} imports {other}"
        for module, others in arrows().items()
        for other in others
        for one in apart
        if module.startswith(one) and other.startswith(apart) and not other.startswith(one)
    ]
    assert across == []


def test_every_module_of_mu_that_methods_need_is_where_they_import_it_from() -> None:
    assert {"mu.training", "mu.snapshot", "mu.knobs", "mu.split"} <= set(modules())


@pytest.mark.parametrize(
    ("package", "owner"),
    [("ray", "sweeps.workers"), ("optuna", "sweeps.search"), ("mlflow", "sweeps.tracking")],
)
def test_each_foreign_system_has_one_package(package: str, owner: str) -> None:
    exceptions = {
        "ray": {"sweeps.tracking.remote"},  # a job is sent to a cluster's head
        "optuna": {"sweeps.study.methods", "sweeps.study.space", "reports.analysis.importance"},
        "mlflow": set[str](),
    }[package]
    strangers = {
        module
        for module, path in modules().items()
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
        )
        if name.partition(".")[0] == package and not module.startswith(owner)
    }
    assert strangers <= exceptions
