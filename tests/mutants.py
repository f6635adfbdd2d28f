"""Change the code a little, again and again, and count how often its tests notice: ``python tests/mutants.py``.

Each mutant differs from the code in one operator, constant or condition of the parts on which every conclusion rests. Heavy
libraries are imported once; a child process then imports the mutant and runs the tests of its part until the first failure.
Survivors are printed: each is either equivalent to the code, or a claim that no test makes.
"""

from __future__ import annotations

import argparse
import ast
import importlib.util
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

ROOT = Path(__file__).parents[1]
PARTS = {
    "mu/metrics": (
        ["attacks.py", "audits.py", "basic.py", "closeness.py", "logistic.py"],
        ["tests/mu/metrics", "tests/mu/test_evaluate.py", "tests/sweeps/test_audit.py"],
    ),
    "mu": (["selection.py"], ["tests/mu/test_selection.py", "tests/reports/test_statistics.py"]),
    "sweeps/search": (["asha.py", "cells.py", "samplers.py"], ["tests/sweeps/search"]),
    "reports": (
        ["stats.py", "ranks.py", "comparison.py", "robustness.py", "tuning_check.py"],
        ["tests/reports/test_statistics.py", "tests/reports/test_robustness.py"],
    ),
}
"""Folder to the files that are mutated and the tests that should notice."""
LIMIT_SECONDS = 600
"""When a mutant counts as noticed because its tests do not end."""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}


@dataclass(frozen=True)
class Mutant:
    """One change of one file; `place` counts the places of the file that can be changed."""

    path: Path
    place: int
    line: int
    text: str

    @property
    def module(self) -> str:
        return ".".join(self.path.relative_to(ROOT).with_suffix("").parts)


def places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int, str]]:
    """Yield what can be changed: node, field, position in the field (-1: no list), and the change in words.

    Decorators stay as they are: that a dataclass is frozen is a habit, not a claim.
    """
    decorators = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, (ast.ClassDef, ast.FunctionDef))
        for decorator in node.decorator_list
        for part in ast.walk(decorator)
    }
    for node in ast.walk(tree):
        if id(node) in decorators:
            continue
        if isinstance(node, ast.Compare):
            for at, operator in enumerate(node.ops):
                yield node, "ops", at, type(operator).__name__
        elif isinstance(node, (ast.BinOp, ast.BoolOp, ast.UnaryOp)) and type(node.op) in SWAPS:
            yield node, "op", -1, type(node.op).__name__
        elif isinstance(node, (ast.If, ast.IfExp, ast.While)):
            yield node, "test", -1, "negated condition"
        elif isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            yield node, "value", -1, f"constant {node.value}"
        elif isinstance(node, ast.Name) and node.id in NAMES and isinstance(node.ctx, ast.Load):
            yield node, "id", -1, node.id


def changed(node: ast.AST, field: str, at: int) -> None:
    """Make the change at one place, in place."""
    value: Any = getattr(node, field)
    if field == "ops":
        value[at] = SWAPS[type(value[at])]()
    elif field == "op":
        setattr(node, field, SWAPS[type(value)]())
    elif field == "test":
        setattr(node, field, ast.UnaryOp(ast.Not(), value))
    elif field == "id":
        setattr(node, field, NAMES[value])
    else:
        setattr(node, field, not value if isinstance(value, bool) else value + 1)


def candidates(path: Path) -> list[Mutant]:
    """Return every mutant of a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        Mutant(path, place, getattr(node, "lineno", 0), text)
        for place, (node, _, _, text) in enumerate(places(tree))
    ]


def source(mutant: Mutant) -> str:
    """Return the code of a mutant."""
    tree = ast.parse(mutant.path.read_text(encoding="utf-8"))
    node, field, at, _ = list(places(tree))[mutant.place]
    changed(node, field, at)
    return ast.unparse(ast.fix_missing_locations(tree))


class Changed(MetaPathFinder, Loader):
    """An import of one module that runs other code."""

    def __init__(self, mutant: Mutant):
        self.name, self.path, self.code = mutant.module, str(mutant.path), source(mutant)

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return (
            importlib.util.spec_from_file_location(name, self.path, loader=self)
            if name == self.name
            else None
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(compile(self.code, self.path, "exec"), module.__dict__)


def noticed(mutant: Mutant | None, tests: list[str]) -> bool:
    """Return whether tests fail with a mutant; None is the code as it is."""
    child = os.fork()
    if not child:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        signal.alarm(LIMIT_SECONDS)
        import pytest

        if mutant is not None:
            sys.meta_path.insert(0, Changed(mutant))
        options = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]
        os._exit(int(pytest.main([*options, *tests])))
    return os.waitpid(child, 0)[1] != 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=int, default=200, help="number of mutants")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    os.chdir(ROOT)
    for name in ("hypothesis", "optuna", "scipy.stats", "sklearn.svm", "torch"):
        importlib.import_module(name)
    tests_of = {
        ROOT / folder / file: tests for folder, (files, tests) in PARTS.items() for file in files
    }
    everything = [mutant for path in tests_of for mutant in candidates(path)]
    sample = random.Random(given.seed).sample(everything, min(given.sample, len(everything)))
    for tests in {id(tests): tests for tests in tests_of.values()}.values():
        if noticed(None, tests):
            raise SystemExit(f"{' '.join(tests)}: fail without any change")
    survivors = []
    began = time.monotonic()
    for number, mutant in enumerate(sample, start=1):
        if not noticed(mutant, tests_of[mutant.path]):
            survivors.append(mutant)
            print(f"{mutant.path.relative_to(ROOT)}:{mutant.line}: {mutant.text}", flush=True)
        if number % 20 == 0:
            caught = number - len(survivors)
            print(f"# {caught} of {number} caught, {time.monotonic() - began:.0f} s", flush=True)
    caught = len(sample) - len(survivors)
    print(
        f"{caught} of {len(sample)} mutants caught ({100 * caught / len(sample):.1f} %), of {len(everything)} there are"
    )


if __name__ == "__main__":
    main()
