"""How numbers and names are printed, on the page, in tables and in the terminal."""

# ruff: noqa: RUF001 (typographic signs are meant)

from __future__ import annotations

from collections.abc import Callable

from mu.metrics import METRICS
from reports.analysis.summaries import OWN_GAP, unit
from reports.load import RecordedRequest, RecordedStudy

ORACLE = "Oracle selection on the reported seeds (as the papers)."
Form = Callable[[float], str]
"""How a number is printed."""


def searched_view(study: RecordedStudy) -> str:
    """Return what the search looked at, in words."""
    return "test view" if study.oracle else "validation view"


def objective(study: RecordedStudy) -> str:
    """Return what the search made least; a list of the study's own is spelt out."""
    names = ", ".join(map(label, study.own_list)) if study.objective == OWN_GAP else ""
    return label(study.objective) + (f" (over {names})" if names else "")


def title(request: RecordedRequest) -> str:
    """Return a request with what it is."""
    target = request.details.get("class")
    parts = [request.kind.replace("_", " ") + (f" {target}" if target is not None else "")]
    if request.forget is not None:
        parts.append(count(request.forget, "sample"))
    text = ", ".join(part for part in parts if part)
    return f"{request.name} ({text})" if text else request.name


def label(metric: str, whole_class: bool | None = None) -> str:
    """Return our label of a metric, with what the paper of the table's format calls it."""
    if metric not in METRICS:
        return "Mean gap" if metric == OWN_GAP else metric
    names = METRICS[metric].names
    setting = "NatMU (class)" if whole_class else "NatMU (random)"
    theirs = names.get(setting) or names.get("NatMU") or next(iter(names.values()), "")
    ours = METRICS[metric].label
    return f"{ours} ({theirs})" if theirs not in ours and whole_class is not None else ours


def form_of(metric: str) -> Form:
    """Return how tables print a metric: fractions in percent."""
    forms: dict[str, Form] = {"fraction": percent, "s": seconds, "count": "{:,.0f}".format}
    return forms.get(unit(metric), "{:.3f}".format)


def number(metric: str, value: float) -> str:
    """Return a value of a metric as tables print it."""
    return form_of(metric)(value)


def percent(value: float) -> str:
    """Return a fraction in percent."""
    return f"{100 * value:.2f}"


def share(value: float) -> str:
    """Return a recovery in percent."""
    text = f"{round(100 * value, 9):.1f}"  # the same text wherever sums are rounded otherwise
    return "0.0" if text == "-0.0" else text.replace("-", "−")


def signed(value: float) -> str:
    """Return a difference of fractions in percent points, with its sign."""
    text = f"{100 * value:+.2f}"
    return "0.00" if text in ("+0.00", "-0.00") else text.replace("-", "−")


def seconds(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.1f}" if value >= 100 else f"{value:.2f}"


def knob_text(values: object) -> str:
    """Return knobs on one line."""
    pairs = values.items() if isinstance(values, dict) else ()
    return ", ".join(f"{name} = {knob_value(value)}" for name, value in pairs)


def knob_value(value: object, digits: int = 4) -> str:
    return f"{value:.{digits}g}" if isinstance(value, float) else str(value)


def p_value(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def missing(n: int, seeds: int) -> str:
    return f"n={n}" if n < seeds else ""


def count(n: int, noun: str) -> str:
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"
