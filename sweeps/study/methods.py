"""Methods as a study uses them: knobs that are fixed, and ranges that are searched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mu import methods
from mu.forget import ForgetRequest
from mu.methods import Method
from sweeps.errors import StudyError
from sweeps.study import space
from sweeps.study.fields import known
from sweeps.study.space import Range


@dataclass(frozen=True)
class MethodConfig:
    """A method as a study uses it.

    Args:
        method: The method.
        fixed: Every knob with the value it has where no range applies.
        ranges: What the search may change.
        forget: Names of the forget requests it is used on.
    """

    method: Method
    fixed: Mapping[str, Any]
    ranges: tuple[Range, ...]
    forget: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.method.name


def parse_methods(
    raw: Any, requests: Mapping[str, ForgetRequest], where: str, folders: Sequence[Path]
) -> tuple[MethodConfig, ...]:
    """The list of methods of a study on its requests. Raises StudyError."""
    if not isinstance(raw, list) or not raw:
        raise StudyError(f"{where}: must list at least one method, but got {raw!r}")
    tuned: list[MethodConfig] = []
    for entry in raw:
        content = {"name": entry} if isinstance(entry, str) else entry
        if not isinstance(content, dict) or not isinstance(content.get("name"), str):
            raise StudyError(
                f"{where}: must be a name or {{name, fix, space, forget}}, but got {entry!r}"
            )
        here = f"{where}: {content['name']}"
        known(content, ("name", "fix", "space", "forget"), here)
        try:
            method = methods.load(content["name"], folders)
        except ValueError as error:
            raise StudyError(f"{where}: {error}") from error
        if method.name in [t.name for t in tuned]:
            raise StudyError(f"{here}: is listed twice")
        used = content.get("forget", list(requests))
        if not isinstance(used, list) or not used:
            raise StudyError(f"{here}: forget: must list forget requests, but got {used!r}")
        for name in used:
            if name not in requests:
                raise StudyError(
                    f"{here}: forget: unknown request {name!r}; there are {', '.join(requests)}"
                )
            if requests[name].kind not in method.requests:
                raise StudyError(
                    f"{here}: does not support the {requests[name].kind} request `{name}`; it "
                    f"supports {', '.join(method.requests)} (limit it with `forget: [...]`)"
                )
        names = tuple(name for name in requests if name in used)
        tuned.append(_tuned(method, content, names, here, folders))
    return tuple(tuned)


def _tuned(
    method: Method,
    content: Mapping[str, Any],
    requests: tuple[str, ...],
    where: str,
    folders: Sequence[Path],
) -> MethodConfig:
    fix, own = content.get("fix") or {}, content.get("space") or {}
    for key, value in (("fix", fix), ("space", own)):
        if not isinstance(value, dict):
            raise StudyError(f"{where}: {key}: must be a mapping, but got {value!r}")
    try:
        fixed = method.check(fix)
    except ValueError as error:
        raise StudyError(f"{where}: fix: {error}") from error
    both = sorted(set(fix) & set(own))
    if both:
        raise StudyError(f"{where}: `{both[0]}` is in both `fix` and `space`")
    shipped, source = space.shipped(method, folders)
    ranges = {r.knob: r for r in space.parse(shipped, method, source)}
    ranges |= {r.knob: r for r in space.parse(own, method, f"{where}: space")}
    kept = tuple(r for name, r in ranges.items() if name not in fix)
    return MethodConfig(method, fixed, kept, requests)


def plain_method(tuned: MethodConfig) -> dict[str, Any]:
    """As it is written in a study file, with every knob."""
    spans = {}
    for span in tuned.ranges:
        if span.choices:
            content: dict[str, Any] = {"choices": list(span.choices)}
        else:
            content = {"low": span.low, "high": span.high}
            content |= {"log": True} if span.log else {}
            content |= {"step": span.step} if span.step is not None else {}
        spans[span.knob] = content | ({"when": dict(span.when)} if span.when else {})
    searched = {span.knob for span in tuned.ranges}
    fix = {name: value for name, value in tuned.fixed.items() if name not in searched}
    return {"name": tuned.name, "fix": fix, "space": spans, "forget": list(tuned.forget)}
