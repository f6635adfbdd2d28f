"""Recipes and the architecture page name files and names that exist."""

from __future__ import annotations

import re

import pytest
from studies import ROOT

PAGES = ("CONTRIBUTING.md", "docs/architecture.md", "CHANGELOG.md")
OUTER = ("mu", "reports", "sweeps", "search_spaces", "docs", "examples", "tests")


@pytest.mark.parametrize("page", PAGES)
def test_files_and_links_of_a_page_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    named = re.findall(r"`([\w./]+)`", text)
    paths = [name for name in named if name.split("/")[0] in OUTER and "/" in name]
    assert page == "CHANGELOG.md" or len(paths) > 10
    for path in paths:
        assert "NAME" in path or (ROOT / path).exists(), path
    for link in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", text):
        assert ((ROOT / page).parent / link).exists(), link


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("mu/metrics/vocabulary.py", ["METRICS"]),
        ("mu/evaluate.py", ["score", "costly_score", "compare", "unavailable"]),
        ("mu/data/loaders.py", ["LOADERS"]),
        ("mu/models/architectures.py", ["MODELS", "TOKEN_MODELS", "IMAGENET_FORMS"]),
        ("mu/forget.py", ["KINDS", "select", "__post_init__"]),
        ("sweeps/study/search.py", ["Search"]),
        ("sweeps/search/samplers.py", ["make_sampler"]),
        ("reports/contents.py", ["FIGURES", "TABLES"]),
        ("tests/tiny_data.py", ["MAKERS"]),
        ("tests/toy.py", ["REQUESTS"]),
        ("tests/reports/test_page.py", ["FIGURES", "TABLES"]),
    ],
)
def test_names_of_the_recipes_are_defined_where_they_say(path: str, names: list[str]) -> None:
    recipes = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    source = (ROOT / path).read_text(encoding="utf-8")
    assert path in recipes
    for name in names:
        assert f"`{name}" in recipes, name
        assert re.search(rf"^\s*(def |class )?{name}\b\s*[(:=]", source, re.MULTILINE), name
