"""Measures of style that tests hold a package to, read from its syntax trees."""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from pathlib import Path

Function = ast.FunctionDef | ast.AsyncFunctionDef
Definition = ast.ClassDef | Function
Exempt = Callable[[Path, Function], bool]


@cache
def modules(package: Path) -> list[tuple[Path, ast.Module]]:
    """Return every Python file of a package, in its subfolders too, with its syntax tree."""
    return [
        (path, ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted(package.rglob("*.py"))
    ]


@cache
def functions(package: Path) -> list[tuple[Path, Function]]:
    """Return every function and method of a package with its file, nested ones too."""
    return [
        (path, node)
        for path, tree in modules(package)
        for node in ast.walk(tree)
        if isinstance(node, Function)
    ]


def undocumented(package: Path) -> list[str]:
    """Return the public functions and classes, at the top of a module, that have no docstring, as ``file:line name``."""
    return [
        f"{path}:{node.lineno} {node.name}"
        for path, tree in modules(package)
        for node in tree.body
        if isinstance(node, Definition)
        and not node.name.startswith("_")
        and not ast.get_docstring(node)
    ]


def long_functions(package: Path, most: int = 60) -> list[str]:
    """Return the functions of more than `most` lines, docstring and signature included, as ``file:line name (lines)``."""
    lengths = [
        (path, node, (node.end_lineno or node.lineno) - node.lineno + 1)
        for path, node in functions(package)
    ]
    return [
        f"{path}:{node.lineno} {node.name} ({lines} lines)"
        for path, node, lines in lengths
        if lines > most
    ]


def no_exemption(path: Path, function: Function) -> bool:
    """Return False: count the keyword-only parameters of every function."""
    return False


def long_signatures(package: Path, most: int = 8, knobs: Exempt = no_exemption) -> list[str]:
    """Return the functions with more than `most` parameters, as ``file:line name (parameters)``.

    Args:
        package: The package's folder.
        most: Most parameters allowed; `self` and `cls` count.
        knobs: Says of a function whether its keyword-only parameters do not count.
    """
    signatures = []
    for path, node in functions(package):
        arguments = node.args
        count = len(arguments.posonlyargs) + len(arguments.args)
        if not knobs(path, node):
            count += len(arguments.kwonlyargs)
        if count > most:
            signatures.append(f"{path}:{node.lineno} {node.name} ({count} parameters)")
    return signatures
