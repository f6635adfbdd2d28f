"""The page as a reader meets it, in a headless Chromium; left out where there is none."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from studies import ROOT

from mu.record import read, to_line, trial_line, write
from reports import load
from reports.page.report import write as write_report
from reports.tables.cells import NONE
from tests.reports.browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
EVIL = '</script><script>alert("x")</script> $a_1$ | % \\' + "w" * 180
UNFOLD = "document.querySelectorAll('details').forEach(part => part.open = true)"
DRAWN = "document.querySelectorAll('.panel svg.marks').length"
PANEL = "document.querySelector('#figure-tradeoff .panel svg.marks')"
VISIBLE = "[...document.querySelectorAll({!r})].filter(e => e.getClientRects().length).map(e => e.textContent.trim())"


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(tmp_path_factory.mktemp("tiny"), "alpha")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def made(folder: Path, alpha: str) -> Path:
    """Write a page on the records of the tests; its method `alpha` may have another name."""
    line, records = read(ROOT / "tests" / "data" / "trials.jsonl")
    line = json.loads(json.dumps(line).replace("alpha", json.dumps(alpha)[1:-1]))
    renamed = [
        dataclasses.replace(r, method=alpha if r.method == "alpha" else r.method) for r in records
    ]
    content = {key: value for key, value in line.items() if key not in ("kind", "schema")}
    write(folder / "trials.jsonl", [to_line("study", content), *map(trial_line, renamed)])
    write_report(load.read(folder), folder / "report", "none")
    return folder / "report" / "index.html"


def shown(browser: Browser, selector: str) -> list[str]:
    """Return the texts of the visible elements."""
    return browser.run(VISIBLE.format(selector))


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 400])
def test_everything_unfolds_without_trouble_and_fits_the_window(
    browser: Browser, page: Path, width: int, theme: str
) -> None:
    browser.open(page, width, theme)
    panels = browser.run(
        "Object.values(JSON.parse(document.getElementById('data').textContent).figures)"
        ".reduce((sum, figure) => sum + figure.panels.length, 0)"
    )
    browser.run(UNFOLD)
    browser.run("document.querySelectorAll('figure').forEach(f => f.scrollIntoView())")
    browser.call(
        "Emulation.setDeviceMetricsOverride",
        **{"width": width, "height": 30_000, "deviceScaleFactor": 1, "mobile": False},
    )
    browser.wait(f"{DRAWN} === {panels}")
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == (
        "rgb(255, 255, 255)" if theme == "light" else "rgb(20, 24, 31)"
    )
    assert browser.trouble == []


def test_switch_turns_the_page_dark_with_its_charts(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait(f"{DRAWN} > 0")
    ink = f"{PANEL}?.querySelector('.role-axis-title text').getAttribute('fill')"
    assert browser.run(ink) == "#1c2128"
    browser.run("document.querySelector('#theme').click()")
    assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 31)"
    browser.wait(f"{ink} === '#e6e9ee'")


def test_a_head_sorts_its_table(browser: Browser, page: Path) -> None:
    browser.open(page)
    column = "#summary tbody[data-f=random10] tr[data-m] td:nth-child(2)"
    first = shown(browser, column)
    for _ in range(2):
        browser.run("document.querySelector('#summary thead th:nth-child(2)').click()")
    rising = shown(browser, column)
    assert rising != first and sorted(rising) == sorted(first)
    assert [text[:4] for text in rising] == ["75.9", "79.5", NONE, NONE], "what is missing is last"
    head = "document.querySelector('#summary thead th:nth-child(2)')"
    assert browser.run(f"{head}.ariaSort") == "ascending"
    browser.run(
        f"{head}.dispatchEvent(new KeyboardEvent('keydown', {{key: 'Enter', bubbles: true}}))"
    )
    assert browser.run(f"{head}.ariaSort") == "descending"


def test_a_method_that_is_picked_filters_tables_charts_and_trials(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    browser.run(f"{UNFOLD}; document.querySelector('#figure-over_forgetting').scrollIntoView()")
    lines = "document.querySelectorAll('#figure-over_forgetting svg .mark-line path').length"
    browser.wait(f"{lines} > 0")
    browser.run("document.querySelector('.chip[data-pick=beta]').click()")
    assert shown(browser, "#summary tr[data-m]")[0].startswith("beta")
    assert len(shown(browser, "#summary tr[data-m]")) == 2, "beta on both requests"
    assert shown(browser, "#table-main thead th")[-1] == "beta"
    assert "alpha" not in shown(browser, "#table-main thead th")
    assert "Knobs of alpha" not in shown(browser, "#search summary")
    methods = set(shown(browser, "#trial-list td:nth-child(5)"))
    assert methods == {"beta"}
    browser.wait(f"{lines} === 0")  # it has no curve
    browser.run("document.querySelector('#clear').click()")
    browser.wait(f"{lines} > 0")
    assert "alpha" in shown(browser, "#table-main thead th")


def test_charts_that_a_filter_hid_are_drawn_when_it_is_gone(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(f"document.querySelector('.chip[data-pick=beta]').click(); {UNFOLD}")
    browser.run("document.querySelector('#figure-transfer_matrix').scrollIntoView()")
    browser.wait("document.querySelector('#figure-transfer_matrix').dataset.drawn === 'yes'")
    browser.run("document.querySelector('#clear').click()")
    browser.wait(
        "document.querySelector('#figure-transfer_matrix [data-m=alpha] svg.marks')?.clientWidth > 50"
    )


def test_a_request_that_is_picked_filters_panels_and_rows(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(
        "const list = document.querySelector('#request'); list.value = 'class3';"
        "list.dispatchEvent(new Event('change'))"
    )
    assert set(shown(browser, "#trial-list td:nth-child(3)")) == {"class3"}
    assert len(shown(browser, "#summary tbody")) == 1
    browser.wait("document.querySelectorAll('#figure-tradeoff .panel').length === 2")
    assert shown(browser, "#figure-tradeoff h4") == ["class3"]


def test_points_can_be_clicked_and_brushed(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.wait(f"!!{PANEL}")
    browser.run(f"{PANEL}.scrollIntoView({{block: 'center'}})")
    point = f"[...{PANEL}.querySelectorAll('.mark-symbol path')].find(p => p.__data__.datum.method === 'beta')"
    box = browser.run(
        f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])({point}.getBoundingClientRect())"
    )
    everything = len(shown(browser, "#trial-list tbody tr"))
    browser.drag((box[0], box[1]), (box[0], box[1]))
    browser.wait("document.querySelector('.chip[data-pick=beta]').ariaPressed === 'true'")
    browser.run("document.querySelector('#clear').click()")
    browser.wait(f"!!{PANEL} && !!{point}")
    browser.drag((box[0] - 15, box[1] - 15), (box[0] + 15, box[1] + 15))
    browser.wait("document.querySelector('#count').textContent.includes('brushed')")
    cells = {
        tuple(text.split("|"))
        for text in browser.run(
            "[...document.querySelectorAll('#trial-list tbody tr')].map(r => r.cells[2].textContent + '|' + r.cells[4].textContent)"
        )
    }
    assert cells == {("random10", "beta")}
    assert len(shown(browser, "#trial-list tbody tr")) < everything


def test_a_cell_opens_its_trials_and_a_trial_what_it_left(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(UNFOLD)
    column = "[...document.querySelectorAll('#table-main thead th')].findIndex(h => h.textContent === 'gamma')"
    browser.run(
        f"document.querySelector('#table-main tbody[data-f=random10] tr:nth-child(2)').cells[{column}].click()"
    )
    heading = shown(browser, "dialog h2")
    assert heading[0].startswith("gamma on random10: ")
    failed = "[...document.querySelectorAll('dialog tbody tr')].find(r => r.textContent.includes('failed'))"
    browser.run(f"{failed}.click()")
    text = shown(browser, "dialog")[0]
    assert 'ValueError: bad <lr> & "knobs"' in text and "Traceback" in text
    assert "lr0.3" in text
    browser.run(
        "[...document.querySelectorAll('dialog button')].find(b => b.textContent.startsWith('Back')).click()"
    )
    assert len(shown(browser, "dialog tbody tr")) > 1
    assert browser.trouble == []


def test_keys_reach_every_cell_and_open_its_trials(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(UNFOLD)
    summary = "document.querySelector('#summary')"
    assert browser.run(f"{summary}.querySelectorAll('td[tabindex]').length") == 1, (
        "one stop a table"
    )
    browser.run(f"{summary}.querySelector('td[tabindex]').focus()")
    place = "(({cellIndex, parentElement: {rowIndex}}) => [rowIndex, cellIndex])(document.activeElement)"
    row, column = browser.run(place)
    for key, moved in (("ArrowRight", [row, column + 1]), ("ArrowLeft", [row, column])):
        browser.press(key)
        assert browser.run(place) == moved
    browser.press("ArrowDown")
    assert browser.run(place) == [row + 1, column]
    method = browser.run("document.activeElement.closest('[data-m]').dataset.m")
    browser.press("Enter")
    assert shown(browser, "dialog h2")[0].startswith(f"{method} on random10: ")
    browser.run("document.querySelector('dialog tbody tr').focus()")
    browser.press("Enter")
    assert shown(browser, "dialog dl"), "so does a line of the list with what its trial left"
    browser.press("Escape")
    assert not shown(browser, "dialog h2")
    assert browser.run(place) == [row + 1, column], "closing leads back to the cell"


def test_keys_pass_over_what_a_filter_hides(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.run(f"{UNFOLD}; document.querySelector('.chip[data-pick=beta]').click()")
    method = "document.activeElement.closest('[data-m]').dataset.m"
    for key in ("", *["ArrowDown"] * 4):
        if key:
            browser.press(key)
        else:
            browser.run("document.querySelector('#summary td[tabindex]').focus()")
        assert browser.run(method) == "beta"
    browser.run("document.querySelector('#table-main td[tabindex]').focus()")
    browser.press("Enter")
    assert shown(browser, "dialog h2")[0].startswith("beta on ")


def test_names_are_text_wherever_they_stand(browser: Browser, tmp_path: Path) -> None:
    browser.open(made(tmp_path, EVIL), 400)
    browser.run("document.querySelector('#figure-tradeoff').scrollIntoView()")
    browser.wait(f"{DRAWN} > 0")
    browser.run(f"{UNFOLD}; document.querySelector('.chip').click()")
    assert shown(browser, ".chip")[0] == EVIL
    assert set(shown(browser, "#trial-list td:nth-child(5)")) == {EVIL}
    assert {text.split()[0] for text in shown(browser, "#summary tr[data-m]")} == {EVIL.split()[0]}
    assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    assert browser.trouble == []
