"""The digest of a method's code: what changes it and what does not."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from mu import methods, source
from mu.source import code_digest

HELPER = '''"""Helpers."""

RATES = {"slow": 1}
RATES["fast"] = 2


def used(x):
    return RATES["fast"] * inner(x)


def inner(x):
    return x + 1


def unused(x):
    return x
'''
METHOD = '''"""A method."""

from own_helpers_of_a_test import used
import numpy as np


def unlearn(x):
    """Do it."""
    return np.abs(used(x))
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    source._place.cache_clear()
    (tmp_path / "own_helpers_of_a_test.py").write_text(HELPER)
    (tmp_path / "method.py").write_text(METHOD)
    return tmp_path


def digest(folder: Path, method: str = METHOD, helper: str = HELPER) -> str:
    (folder / "own_helpers_of_a_test.py").write_text(helper)
    (folder / "method.py").write_text(method)
    return code_digest(folder / "method.py")


def test_comments_docstrings_and_layout_do_not_count(folder: Path) -> None:
    before = digest(folder)
    other = METHOD.replace('"""Do it."""', '"""Do it well."""  # a comment\n')
    assert digest(folder, other) == before
    assert digest(folder, METHOD.replace('    """Do it."""\n', "")) == before
    assert digest(folder, METHOD.replace('"""A method."""\n', "")) == before
    assert digest(folder, helper=HELPER.replace("x + 1", "(x  +  1)")) == before


@pytest.mark.parametrize(
    ("old", "new"), [("x + 1", "x + 2"), ('["fast"] = 2', '["fast"] = 3'), ("* inner", "+ inner")]
)
def test_what_the_method_uses_of_other_modules_counts(folder: Path, old: str, new: str) -> None:
    assert digest(folder, helper=HELPER.replace(old, new)) != digest(folder)


def test_what_it_does_not_use_and_libraries_do_not_count(folder: Path) -> None:
    before = digest(folder)
    assert digest(folder, helper=HELPER.replace("return x\n", "return 2 * x\n")) == before
    closure = source._Closure()
    parsed = source._parse(folder / "method.py", "")
    closure.add("", parsed, tuple(parsed.tree.body), "*")
    assert {module for module, _ in closure.texts} == {"", "own_helpers_of_a_test"}


def test_the_files_own_code_counts(folder: Path) -> None:
    assert digest(folder, METHOD.replace("np.abs", "np.sqrt")) != digest(folder)


def test_every_shipped_method_has_a_digest_of_its_own() -> None:
    digests = {name: methods.load(name).code for name in methods.names()}
    assert len(set(digests.values())) == len(digests)
    assert all(len(code) == 32 for code in digests.values())


@pytest.mark.parametrize(
    ("name", "module", "definition"),
    [
        ("finetune", "mu.training", "fit"),
        ("finetune", "mu.data.dataset", "Examples"),  # from `mu.split` and `mu.data`
        ("natmu_rl", "mu.methods.natmu", "finetune_on_instances"),
        ("natmu_rl", "mu.training", "fit"),  # by way of another method
        ("unsir", "mu.models.network", "eval_mode"),
    ],
)
def test_shipped_methods_depend_on_what_they_import(
    name: str, module: str, definition: str
) -> None:
    path = methods.load(name).file
    assert path is not None
    closure, parsed = source._Closure(), source._parse(path, "mu.methods")
    closure.add("", parsed, tuple(parsed.tree.body), "*")
    assert (module, definition) in closure.texts
