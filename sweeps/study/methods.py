"""Methods as a study uses them: knobs that are fixed, and ranges that are searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from mu import methods
from mu.forget import ForgetRequest
from mu.methods import Method
from mu.record import REFERENCE_ROLES
from sweeps.errors import StudyError, errors_at
from sweeps.study import portfolio, space
from sweeps.study.portfolio import Portfolio
from sweeps.study.schema import Filled, Name, Section
from sweeps.study.space import Range, RangeSection

NAMES = {"anyOf": [{"enum": methods.shipped_names()}, {"type": "string"}]}


class MethodSection(Section):
    """A method, searched over the ranges that ship with it unless this says otherwise."""

    name: Annotated[str, WithJsonSchema(NAMES)]
    """A file in `mu/methods`, or in the folder of `--methods-path`."""
    alias: Annotated[Name | None, Field(alias="as")] = None
    """What the study calls it, in place of its name: a method with several names stands in each table as often, such as
    `{name: ga, as: ga_eval, fix: {mode: eval}}` beside `ga`."""
    fix: dict[str, Any] | None = None
    """Knob to a value, which is then not searched."""
    space: dict[str, RangeSection] | None = None
    """Knob to the range to search instead of the one that ships."""
    forget: Filled[str] | None = None
    """Names of the requests it is used on; all when left out."""


@dataclass(frozen=True)
class MethodConfig:
    """A method as a study uses it.

    Args:
        name: What the study calls it, of which no two are the same.
        method: The method.
        fixed: Every knob with the value it has where no range applies.
        ranges: What the search may change.
        forget: Names of the forget requests it is used on.
        portfolio: Configurations that were good in earlier studies; None where its file has none.
    """

    name: str
    method: Method
    fixed: Mapping[str, Any]
    ranges: tuple[Range, ...]
    forget: tuple[str, ...]
    portfolio: Portfolio | None = None

    @property
    def alias_of(self) -> str:
        """The method's own name, where the study calls it by another; else empty."""
        return self.method.name if self.method.name != self.name else ""

    @property
    def plain(self) -> dict[str, Any]:
        """What a study file writes of it, with every knob."""
        ranges = {range_.knob: range_.plain for range_ in self.ranges}
        fix = {name: value for name, value in self.fixed.items() if name not in ranges}
        named = {"name": self.method.name} | ({"as": self.name} if self.alias_of else {})
        return {**named, "fix": fix, "space": ranges, "forget": list(self.forget)}


def resolve_methods(
    entries: Sequence[MethodSection],
    requests: Mapping[str, ForgetRequest],
    where: str,
    folders: Sequence[Path],
) -> tuple[MethodConfig, ...]:
    """Return the methods of a study on its requests.

    Args:
        where: Where the methods stand, for messages.
        folders: Where else methods are looked for.

    Raises:
        StudyError: A method, knob or request is unknown, or they do not go together; or two methods have one name.
    """
    configs: list[MethodConfig] = []
    for entry in entries:
        name = entry.alias or entry.name
        here = f"{where}: {name}"
        with errors_at(where):
            method = methods.load(entry.name, folders)
        if entry.alias in (*methods.names(folders), *REFERENCE_ROLES):
            raise StudyError(
                f"{where}: {entry.name}: as: must be a name of the study's own, but {entry.alias!r} is that of a "
                f"{'model' if entry.alias in REFERENCE_ROLES else 'method'}"
            )
        if name in [config.name for config in configs]:
            raise StudyError(f"{here}: is listed twice; `as` gives it a name of its own")
        used = _requests(entry, method, requests, here)
        fixed, ranges = _knobs(entry, method, here, folders)
        known = portfolio.shipped(method, folders)
        configs.append(MethodConfig(name, method, fixed, ranges, used, known))
    return tuple(configs)


def _requests(
    entry: MethodSection, method: Method, requests: Mapping[str, ForgetRequest], where: str
) -> tuple[str, ...]:
    used = tuple(requests) if entry.forget is None else entry.forget
    for name in used:
        if name not in requests:
            raise StudyError(
                f"{where}: forget: unknown request {name!r}; there are {', '.join(requests)}"
            )
        if requests[name].kind not in method.requests:
            raise StudyError(
                f"{where}: does not support the {requests[name].kind} request `{name}`; it "
                f"supports {', '.join(method.requests)} (limit it with `forget: [...]`)"
            )
    return tuple(name for name in requests if name in used)


def _knobs(
    entry: MethodSection, method: Method, where: str, folders: Sequence[Path]
) -> tuple[dict[str, Any], tuple[Range, ...]]:
    """Return the values of all knobs, and the ranges of those that are searched."""
    fix, own = entry.fix or {}, entry.space or {}
    with errors_at(f"{where}: fix"):
        fixed = method.check(fix)
    both = sorted(set(fix) & set(own))
    if both:
        raise StudyError(f"{where}: `{both[0]}` is in both `fix` and `space`")
    shipped, source = space.shipped(method, folders)
    ranges = {r.knob: r for r in space.parse(shipped, method, source)}
    ranges |= {r.knob: r for r in space.resolve(own, method, f"{where}: space")}
    searched = {name: r for name, r in ranges.items() if name not in fix}
    return fixed, tuple(r for r in searched.values() if _can_apply(r, searched, fixed))


def _can_apply(range_: Range, searched: Mapping[str, Range], fixed: Mapping[str, Any]) -> bool:
    """Return whether the knobs that a range depends on have the values that it needs, or may have them."""
    return all(
        value in searched[name] if name in searched else fixed[name] == value
        for name, value in range_.when
    )
