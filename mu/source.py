"""The digest of a method's code: its file, and every definition that the file uses of `mu` and of the user's own modules.

Comments, docstrings and layout do not count. Libraries do not count either: records name their versions.
"""

from __future__ import annotations

import ast
import importlib.util
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import NamedTuple

from mu.keys import content_key

Body = tuple[ast.stmt, ...]
_LIBRARIES = tuple(
    Path(sysconfig.get_path(name)).resolve()
    for name in ("stdlib", "platstdlib", "purelib", "platlib")
)


class Import(NamedTuple):
    """What a name is bound to by an import: a name of a module, or the whole module where `name` is None."""

    module: str
    name: str | None


@dataclass(frozen=True)
class SourceFile:
    """A parsed file.

    Args:
        tree: Its statements.
        package: The package that its relative imports start from.
    """

    tree: ast.Module
    package: str

    @cached_property
    def imports(self) -> dict[str, Import]:
        """Every name that an import binds, also inside functions."""
        bound: dict[str, Import] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    bound[alias.asname or alias.name.partition(".")[0]] = Import(alias.name, None)
            elif isinstance(node, ast.ImportFrom):
                module = "." * node.level + (node.module or "")
                if node.level:
                    module = importlib.util.resolve_name(module, self.package)
                for alias in node.names:
                    bound[alias.asname or alias.name] = Import(module, alias.name)
        return bound

    @cached_property
    def definitions(self) -> dict[str, Body]:
        """Every name that the outermost statements bind or change, with these statements."""
        bound: dict[str, Body] = {}
        for statement in _outermost(self.tree.body):
            for name in _bound_by(statement):
                bound[name] = (*bound.get(name, ()), statement)
        return bound


@dataclass
class _Closure:
    """The definitions that code uses, and those that these use.

    Args:
        own: Outermost package of the method, whose modules count even where they are installed.
        texts: Module and name to the code of a definition.
    """

    own: str = "mu"
    texts: dict[tuple[str, str], str] = field(default_factory=dict)

    def add(self, module: str, source: SourceFile, body: Body, name: str) -> None:
        """Add statements of a module under a name, and all that they use."""
        if (module, name) in self.texts:
            return
        self.texts[module, name] = "\n".join(filter(None, map(_code, body)))
        for used in sorted({name for each in body for name in _names(each)}):
            self._use(module, source, used)

    def _use(self, module: str, source: SourceFile, name: str) -> None:
        """Add what a name stands for in a module; a name of Python or of a library adds nothing."""
        if name in source.definitions:
            self.add(module, source, source.definitions[name], name)
        elif name in source.imports:
            self._follow(source.imports[name])

    def _follow(self, imported: Import) -> None:
        module, name = imported
        source = _own(module, self.own)
        if source is None:
            return
        if name is None or name == "*":
            self.add(module, source, tuple(source.tree.body), "*")
        elif name in source.definitions or name in source.imports:
            self._use(module, source, name)
        elif source.package == module:  # a package, of which `name` may be a module
            self._follow(Import(f"{module}.{name}", None))


def code_digest(path: Path, package: str = "mu.methods") -> str:
    """Return the digest of a file's code and of what it uses of `mu`, of its package and of the user's modules: 32 hex digits.

    Args:
        package: The package that the file is a module of.
    """
    closure, source = _Closure(package.partition(".")[0]), _parse(path, package)
    closure.add("", source, tuple(source.tree.body), "*")
    return content_key("code", [[*name, text] for name, text in sorted(closure.texts.items())])


def _own(module: str, own: str) -> SourceFile | None:
    """Return a module of `mu`, of package `own` or of the user; None for a library's, and for a name that is no module."""
    place = _place(module, own)
    return None if place is None else _parse(*place)


@cache
def _place(module: str, own: str) -> tuple[Path, str] | None:
    """Return the file and the package of a module that is not a library's."""
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        return None
    path = Path(spec.origin)
    ours = module.partition(".")[0] in ("mu", own)
    if not ours and any(path.resolve().is_relative_to(folder) for folder in _LIBRARIES):
        return None
    return path, module if spec.submodule_search_locations is not None else spec.parent or ""


def _parse(path: Path, package: str) -> SourceFile:
    return _parsed(path.read_text(encoding="utf-8"), package)


@cache
def _parsed(text: str, package: str) -> SourceFile:
    return SourceFile(ast.parse(text), package)


def _outermost(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    """Yield the statements of a module, those of `if`, `try` and `with` one by one."""
    for statement in body:
        if isinstance(statement, (ast.If, ast.Try, ast.With)):
            for child in ast.iter_child_nodes(statement):
                if isinstance(child, ast.stmt):
                    yield from _outermost([child])
                elif isinstance(child, ast.ExceptHandler):
                    yield from _outermost(child.body)
        else:
            yield statement


def _bound_by(statement: ast.stmt) -> set[str]:
    """Return the names that an outermost statement binds, or whose object it changes."""
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return set()
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, ast.Expr):  # such as a call that registers something
        return {*_names(statement)} if isinstance(statement.value, ast.Call) else set()
    targets: list[ast.expr] = []
    if isinstance(statement, ast.Assign):
        targets = statement.targets
    elif isinstance(statement, (ast.AnnAssign, ast.AugAssign, ast.For)):
        targets = [statement.target]
    return {name for target in targets for name in _names(target)}


@cache
def _names(node: ast.AST) -> frozenset[str]:
    """Return every name in some code, also those in annotations."""
    return frozenset(child.id for child in ast.walk(node) if isinstance(child, ast.Name))


@cache
def _code(statement: ast.stmt) -> str:
    """Return the text of a statement without comments, docstrings and other strings that stand alone."""
    copy = ast.parse(ast.unparse(statement))
    for node in ast.walk(copy):
        for name in ("body", "orelse", "finalbody"):
            body = getattr(node, name, None)
            if isinstance(body, list):
                kept = [each for each in body if not _is_text(each)]
                needs_one = body and name == "body" and not isinstance(node, ast.Module)
                setattr(node, name, kept or ([ast.Pass()] if needs_one else []))
    return ast.unparse(copy)


def _is_text(statement: ast.AST) -> bool:
    return isinstance(statement, ast.Expr) and (
        isinstance(statement.value, ast.Constant) and isinstance(statement.value.value, str)
    )
