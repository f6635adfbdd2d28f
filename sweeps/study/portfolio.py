"""The key `portfolio` of a search space: configurations that were good in earlier studies, and which studies these were.

``musweep portfolio`` writes it, and `search: {start: portfolio}` tries the configurations first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter

from mu.methods import Method
from mu.record import PORTFOLIO
from sweeps.errors import StudyError, errors_at
from sweeps.study import space
from sweeps.study.schema import Filled, Items, Section, checked
from sweeps.study.space import Range


class SourceSection(Section):
    """A study from whose records a portfolio was chosen."""

    study: str
    """Its name."""
    uuid: str = ""
    """Its UUID."""
    data: str
    """Name of its data set."""
    model: str
    """Name of its network."""
    requests: Filled[str]
    """Its forget requests."""
    seeds: Filled[int]
    """The seeds on which configurations were judged."""
    phase: Literal["menu", "search"] = "menu"
    """Which of its trials were read."""
    fixed: Annotated[dict[str, Any], Field(default_factory=dict)]
    """Knobs that it fixed at other values than the authors'."""


class PortfolioSection(Section):
    """The portfolio of a method."""

    configurations: Filled[dict[str, Any]]
    """The searched knobs of each configuration, the best first; knobs that a study fixes have its values."""
    regret: Items[float] = ()
    """Mean normalised regret of the best of the first one, two, three, ... configurations: 0 is the best of all that was
    tried on a request, 1 is the median."""
    sources: Filled[SourceSection]
    """Where they are from."""


_PORTFOLIO = TypeAdapter(PortfolioSection)


class Portfolio(PortfolioSection):
    """A portfolio, and `where` it stands, for messages."""

    where: str

    def searched(self, fixed: Mapping[str, Any], ranges: Sequence[Range]) -> list[dict[str, Any]]:
        """Return the searched knobs of each configuration as a study has them, without repetitions.

        Args:
            fixed: Every knob with the value that it has where no range applies.
            ranges: What the study searches.

        Raises:
            StudyError: A knob is outside its range there.
        """
        found: list[dict[str, Any]] = []
        spans = {span.knob: span for span in ranges}
        for place, knobs in enumerate(self.configurations):
            values = {**fixed, **{name: knobs[name] for name in knobs if name in spans}}
            point = {name: values[name] for name, span in spans.items() if span.applies(values)}
            _check_ranges(point, spans, f"{self.where}: {place}")
            if point and point not in found:
                found.append(point)
        return found

    def other_settings(
        self, fixed: Mapping[str, Any], authors: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the knobs that the first source had at another value than a study; none where some source agrees in all.

        Args:
            fixed: The knobs that the study fixes.
            authors: Every knob with the authors' value.
        """
        named = {name for knobs in self.configurations for name in knobs}
        here = {name: value for name, value in fixed.items() if name not in named}
        there = [{**authors, **source.fixed} for source in self.sources]
        if any(all(one[name] == value for name, value in here.items()) for one in there):
            return {}
        return {name: there[0][name] for name, value in here.items() if there[0][name] != value}


def shipped(method: Method, folders: Sequence[Path] = ()) -> Portfolio | None:
    """Return the portfolio in the file of a method's ranges; None where it has none.

    Raises:
        StudyError: It is no portfolio, or names a knob or a value that is not in the ranges of the file.
    """
    content, name = space.shipped_content(method, folders)
    if PORTFOLIO not in content:
        return None
    where = f"{name}: {PORTFOLIO}"
    section = checked(_PORTFOLIO, content[PORTFOLIO], where)
    ranges = {knob: part for knob, part in content.items() if knob != PORTFOLIO}
    spans = {span.knob: span for span in space.parse(ranges, method, name)}
    for place, knobs in enumerate(section.configurations):
        with errors_at(f"{where}: configurations: {place}"):
            method.check(knobs)
        _check_ranges(knobs, spans, f"{where}: configurations: {place}")
    for place, source in enumerate(section.sources):
        with errors_at(f"{where}: sources: {place}: fixed"):
            method.check(source.fixed)
    return Portfolio(**dict(section), where=f"{where}: configurations")


def _check_ranges(knobs: Mapping[str, Any], ranges: Mapping[str, Range], where: str) -> None:
    for name, value in knobs.items():
        if name not in ranges:
            raise StudyError(
                f"{where}: {name} is not searched; {', '.join(ranges) or 'nothing'} is"
            )
        if value not in ranges[name]:
            raise StudyError(
                f"{where}: {name} is {value!r}, which is not in its range, {ranges[name].plain}"
            )
