"""The code of `mu` keeps its functions small and documented."""

from __future__ import annotations

from pathlib import Path

from style import Function, long_functions, long_signatures, undocumented

import mu

PACKAGE = Path(mu.__file__).parent


def is_unlearn(path: Path, function: Function) -> bool:
    """Return whether a function's keyword-only parameters are the knobs of a method."""
    return function.name == "unlearn" and path.parent == PACKAGE / "methods"


def test_public_functions_and_classes_have_docstrings() -> None:
    assert undocumented(PACKAGE) == []


def test_no_function_is_long() -> None:
    assert long_functions(PACKAGE) == []


def test_no_function_has_many_parameters() -> None:
    assert long_signatures(PACKAGE, knobs=is_unlearn) == []
