"""Ranges of versions are written down in several files, which agree."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.version import Version
from studies import ROOT

UNTESTED = ("torch", "torchvision")
"""Packages whose lower bound nothing tests, as pyproject.toml says."""


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def pinned(name: str) -> dict[str, Version]:
    """Package to version of a file of exact versions."""
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {package: Version(version) for package, version in pairs}


def requirements(project: dict[str, Any]) -> dict[str, Requirement]:
    """What a user installs, with the extra for clusters."""
    listed = project["project"]["dependencies"]
    extra = project["project"]["optional-dependencies"]["cluster"]
    return {wanted.name: wanted for wanted in map(Requirement, [*listed, *extra])}


def bound(wanted: Requirement, operator: str) -> Version | None:
    found = [Version(each.version) for each in wanted.specifier if each.operator == operator]
    return found[0] if found else None


def test_the_lowest_versions_are_those_of_the_ranges(project: dict[str, Any]) -> None:
    lowest, locked = pinned("requirements-lowest.txt"), pinned("requirements.lock")
    ranges = requirements(project)
    assert lowest.keys() == ranges.keys()
    for name, wanted in ranges.items():
        if name in UNTESTED:
            assert lowest[name] == locked[name], name
        else:
            assert lowest[name] == bound(wanted, ">="), name


def test_the_locked_versions_are_the_last_of_the_ranges(project: dict[str, Any]) -> None:
    locked = pinned("requirements.lock")
    for name, wanted in requirements(project).items():
        assert locked[name] in wanted.specifier, name
        end = bound(wanted, "<")
        if end is not None:  # the next minor release, or the next major one
            major, minor = locked[name].release[:2]
            assert end in (Version(f"{major}.{minor + 1}"), Version(f"{major + 1}")), name


def test_python_versions_agree(project: dict[str, Any]) -> None:
    prefix = "Programming Language :: Python :: "
    versions = [
        line.removeprefix(prefix)
        for line in project["project"]["classifiers"]
        if line.startswith(prefix)
    ]
    first, last = versions[0], versions[-1].split(".")
    end = f"3.{int(last[1]) + 1}"
    assert project["project"]["requires-python"] == f">={first},<{end}"
    assert project["tool"]["ruff"]["target-version"] == f"py{first.replace('.', '')}"
    assert project["tool"]["mypy"]["python_version"] == first
    workflow = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))
    assert workflow["jobs"]["test"]["strategy"]["matrix"]["python"] == versions
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    checked = re.search(r"not \((3), (\d+)\) <= sys.version_info < \((3), (\d+)\)", makefile)
    assert checked is not None
    assert (f"3.{checked[2]}", f"3.{checked[4]}") == (first, end)


def test_the_changelog_begins_with_the_version_at_work(project: dict[str, Any]) -> None:
    entries = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M)
    assert entries[0] == Version(project["project"]["version"]).base_version


def test_every_package_is_installed_and_says_that_it_is_typed(project: dict[str, Any]) -> None:
    listed = project["tool"]["setuptools"]["packages"]
    outer = {name.split(".")[0] for name in listed}
    folders = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for name in outer
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert set(listed) == folders
    assert all((ROOT / name / "py.typed").is_file() for name in outer)
