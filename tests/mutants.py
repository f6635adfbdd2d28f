"""Change the code a little, again and again, and count how often its tests notice: ``python tests/mutants.py``.

Each mutant differs from the code in one operator, constant or condition of the parts on which every conclusion rests. A
survey first notes which test files call which function. The tests are then imported once, and a child process for each
mutant exchanges the code of one function and runs the files that call it until the first failure. A mutant outside of
functions, or of a function that runs during imports, is imported by a fresh process that runs all tests of its part.
Survivors are printed: each is either equivalent to the code, or a claim that no test makes.
"""

from __future__ import annotations

import argparse
import ast
import gc
import importlib.util
import os
import pickle
import random
import signal
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PARTS = {
    "mu/metrics": (
        ["attacks.py", "audits.py", "basic.py", "closeness.py", "logistic.py"],
        ["tests/mu/metrics", "tests/mu/test_evaluate.py", "tests/sweeps/test_audit.py"],
    ),
    "mu": (
        ["selection.py", "choice.py", "constraints.py", "relative.py"],
        [
            "tests/mu/test_selection.py",
            "tests/mu/test_choice.py",
            "tests/mu/test_relative.py",
            "tests/reports/test_statistics.py",
        ],
    ),
    "sweeps/search": (
        [
            "asha.py",
            "cell_search.py",
            "cells.py",
            "earlier.py",
            "points.py",
            "positions.py",
            "samplers.py",
        ],
        ["tests/sweeps/search"],
    ),
    "reports/analysis": (
        ["comparison.py", "robustness.py", "tuning_check.py"],
        ["tests/reports/test_statistics.py", "tests/reports/test_robustness.py"],
    ),
    "reports/statistics": (
        ["equivalence.py", "intervals.py", "rankings.py", "recovery.py"],
        ["tests/reports/test_equivalence.py", "tests/reports/test_statistics.py"],
    ),
}
"""Folder to the files that are mutated and the tests that should notice."""
LIMIT_SECONDS = 120
"""When a mutant counts as noticed because its tests do not end."""
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.And: ast.Or, ast.Or: ast.And, ast.USub: ast.UAdd,
}  # fmt: skip
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
OPTIONS = ["-x", "-q", "-m", "not slow", "-p", "no:cacheprovider", "-p", "no:xdist"]

Calls = dict[str, set[tuple[str, int]]]
"""Test to the functions that it calls, as the file and the line where each begins."""


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
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, (bool, int, float))
            and node.value + 1 != node.value  # of 1e300 it is the same number
        ):
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
        Mutant(path, place, line_of(node), text)
        for place, (node, _, _, text) in enumerate(places(tree))
    ]


def code(mutant: Mutant) -> CodeType:
    """Return the compiled code of a mutant, with the line numbers of the original."""
    tree = ast.parse(mutant.path.read_text(encoding="utf-8"))
    node, field, at, _ = list(places(tree))[mutant.place]
    changed(node, field, at)
    return compile(ast.fix_missing_locations(tree), str(mutant.path), "exec")


def line_of(node: ast.AST) -> int:
    return getattr(node, "lineno", 0)


def lines_of_function(mutant: Mutant) -> range:
    """Return the lines of the outermost function whose body has the change; empty where none has."""
    tree = ast.parse(mutant.path.read_text(encoding="utf-8"))
    target = list(places(tree))[mutant.place][0]
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    for function in functions:  # outer ones come first
        if any(part is target for statement in function.body for part in ast.walk(statement)):
            first = min(line_of(node) for node in (function, *function.decorator_list))
            return range(first, (function.end_lineno or first) + 1)
    return range(0)


class Changed(MetaPathFinder, Loader):
    """An import of one module that runs other code."""

    def __init__(self, mutant: Mutant):
        self.name, self.path, self.code = mutant.module, str(mutant.path), code(mutant)

    def find_spec(self, name: str, path: Any, target: Any = None) -> ModuleSpec | None:
        return (
            importlib.util.spec_from_file_location(name, self.path, loader=self)
            if name == self.name
            else None
        )

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


class Survey:
    """A plugin of pytest that notes where the functions begin that each test calls, and those that imports call.

    Args:
        paths: Files whose functions count.
    """

    def __init__(self, paths: set[str]):
        self.paths = paths
        self.calls: Calls = defaultdict(set)
        self.seconds: dict[str, float] = {}
        self.test = ""

    def __call__(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call" and frame.f_code.co_filename in self.paths:
            self.calls[self.test].add((frame.f_code.co_filename, frame.f_code.co_firstlineno))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self.test, began = item.nodeid, time.monotonic()
        try:
            return (yield)
        finally:
            self.test, self.seconds[item.nodeid] = "", time.monotonic() - began


class Exchange:
    """A plugin of pytest that runs, in place of all tests, those that call a mutant's function, mutant after mutant."""

    def __init__(
        self,
        mutants: list[Mutant],
        calls: Calls,
        seconds: dict[str, float],
        report: Callable[[Mutant, bool], None],
    ):
        self.mutants, self.calls, self.seconds, self.report = mutants, calls, seconds, report

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        for mutant in self.mutants:
            tests = self.tests(mutant, session.items)
            child = fork()
            if not child:
                exchange(mutant)
                for at, item in enumerate(tests):
                    following = tests[at + 1] if at + 1 < len(tests) else None
                    item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
                os._exit(0)
            self.report(mutant, os.waitpid(child, 0)[1] != 0)
        return True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            os._exit(1)

    def tests(self, mutant: Mutant, items: list[pytest.Item]) -> list[pytest.Item]:
        """Return the tests that call the function, quick files and quick tests first, then the others of these files.

        Those may share what the function returned, by a fixture.
        """
        lines = lines_of_function(mutant)
        direct = [
            item
            for item in items
            if any(path == str(mutant.path) and at in lines for path, at in self.calls[item.nodeid])
        ]
        cost: dict[Path, float] = defaultdict(float)
        for item in direct:
            cost[item.path] += self.seconds[item.nodeid]
        direct.sort(key=lambda item: (cost[item.path], item.path, self.seconds[item.nodeid]))
        return direct + [item for item in items if item.path in cost and item not in direct]


def exchange(mutant: Mutant) -> None:
    """Give every function of a mutant's file the code of the mutant."""
    codes, queue = {}, [code(mutant)]
    while queue:
        part = queue.pop()
        codes[part.co_qualname, part.co_firstlineno] = part
        queue += [constant for constant in part.co_consts if isinstance(constant, CodeType)]
    for function in gc.get_objects():
        if isinstance(function, FunctionType):
            own = function.__code__
            if own.co_filename == str(mutant.path):
                function.__code__ = codes[own.co_qualname, own.co_firstlineno]


def fork() -> int:
    """Fork; the child is silent and ends after ``LIMIT_SECONDS``."""
    child = os.fork()
    if not child:
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        signal.alarm(LIMIT_SECONDS)
    return child


def survey(paths: set[str], tests: list[str]) -> tuple[Calls, dict[str, float]]:
    """Return what each test calls, what imports call (as the test without a name), and how long each test takes."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        os.close(reader)
        calls = Survey(paths)
        threading.setprofile(calls)
        sys.setprofile(calls)
        status = pytest.main([*OPTIONS, *tests], plugins=[calls])
        sys.setprofile(None)
        with os.fdopen(writer, "wb") as file:
            pickle.dump((calls.calls, calls.seconds), file)
        os._exit(int(status))
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        result: tuple[Calls, dict[str, float]] = pickle.load(file)
    if os.waitpid(child, 0)[1]:
        raise SystemExit("tests fail without any change")
    return result


def imported(mutant: Mutant, tests: list[str]) -> bool:
    """Return whether tests fail in a process that imports the mutant."""
    child = fork()
    if not child:
        sys.meta_path.insert(0, Changed(mutant))
        os._exit(int(pytest.main([*OPTIONS, *tests])))
    return os.waitpid(child, 0)[1] != 0


class Score:
    """Counts mutants, and prints survivors as they come."""

    def __init__(self, total: int):
        self.total, self.caught, self.number, self.began = total, 0, 0, time.monotonic()

    def __call__(self, mutant: Mutant, caught: bool) -> None:
        self.number += 1
        self.caught += caught
        if not caught:
            print(f"{mutant.path.relative_to(ROOT)}:{mutant.line}: {mutant.text}", flush=True)
        if self.number % 20 == 0 or self.number == self.total:
            seconds = time.monotonic() - self.began
            print(f"# {self.caught} of {self.number} caught, {seconds:.0f} s", flush=True)


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
    tests = sorted({test for tests in tests_of.values() for test in tests})
    everything = [mutant for path in tests_of for mutant in candidates(path)]
    sample = random.Random(given.seed).sample(everything, min(given.sample, len(everything)))
    calls, seconds = survey(set(map(str, tests_of)), tests)
    score = Score(len(sample))
    inside = []
    for mutant in sample:
        lines = lines_of_function(mutant)
        during_imports = any(path == str(mutant.path) and at in lines for path, at in calls[""])
        if lines and not during_imports:
            inside.append(mutant)
        else:
            score(mutant, imported(mutant, tests_of[mutant.path]))
    pytest.main([*OPTIONS, "-s", *tests], plugins=[Exchange(inside, calls, seconds, score)])
    share = 100 * score.caught / len(sample)
    print(
        f"{score.caught} of {len(sample)} mutants caught ({share:.1f} %), of {len(everything)} there are"
    )


if __name__ == "__main__":
    main()
