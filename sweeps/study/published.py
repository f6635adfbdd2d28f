"""Tables that papers printed, under our names, for the report to set beside a study's own numbers.

The tables ship as CSV files with one printed number a line; `studies/papers/published/README.md` says where they are
from and what is doubtful in them. A study names the tables it repeats, and which of its requests stands for which
setting.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from mu import methods
from mu.forget import ForgetRequest
from mu.metrics import METRICS
from sweeps.errors import StudyError, errors_at
from sweeps.phases import trial_phases
from sweeps.study import yaml_file
from sweeps.study.schema import OneOf, Section

COLUMNS = (
    "paper",
    "table",
    "setting",
    "dataset",
    "model",
    "method",
    "metric",
    "mean",
    "std",
    "note",
)
EVERY = "*"
"""In place of a forget request: the mean over all of the study's."""
PRINTED_REFERENCES = {
    "retrain": "retrain",
    "gold (retrain)": "retrain",
    "baseline": "original",
    "no unlearning": "original",
}
METHODS = {
    "activation (forget) pruning": "activation_prune",
    "bad teacher": "badteacher",
    "be": "boundary_expand",
    "boundary unlearning": "boundary_shrink",
    "boundaryshrink": "boundary_shrink",
    "bs": "boundary_shrink",
    "cf-k": "cf_k",
    "eu-k": "eu_k",
    "ff": "fisher",
    "fisher forgetting": "fisher",
    "fine-tuning": "finetune",
    "ft": "finetune",
    "gradient surgery": "gradient_surgery",
    "l1-sparse": "l1_sparse",
    "natmu-nri": "natmu_nri",
    "natmu-rl": "natmu_rl",
    "negative gradient": "ga",
    "random labeling": "amnesiac",
    "random labels": "amnesiac",
    "rl": "amnesiac",
    "soft-relabeling": "soft_relabel",
    "ugradsl adaptive": "ugradsl",
    "ugradsl+": "ugradsl_plus",
    "ugradsl+ adaptive": "ugradsl_plus",
}
"""What papers call our methods, in small letters, where it is not their name here."""
SPELLINGS = {
    ("UGradSL", "AddMIA"): "Add. MIA",
    ("UGradSL", "AvgGap"): "Avg. Gap",
    ("UGradSL", "RTE_hr"): "RTE",
    ("UGradSL", "RTE_min"): "RTE",
    ("JiT", "Df_acc"): "D_f acc",
    ("JiT", "Dr_acc"): "D_r acc",
    ("JiT", "runtime_s"): "runtime",
    **{
        ("Akbari", f"MIA_{name}"): name for name in ("confidence", "correctness", "entropy", "prob")
    },
    ("Akbari", "best_attack_MIA"): "best attack MIA",
}
"""How the vocabulary spells a metric that the files spell otherwise."""
POPULATION = ("NatMU",)
"""Papers whose ± is the standard deviation of the population: the values of NatMU's tables occur for no sample's."""
SCALES = {"RTE_hr": 3600.0, "RTE_min": 60.0, "F-score": 1.0}
"""What a printed number is multiplied by, where that is not one per cent of a fraction."""
AVG_CHANGE = "avg_change"
"""NatMU's AvgChange, which compares two sets of knobs and so belongs to no single trial."""


class Published(Section):
    """A printed table that a study repeats."""

    table: str
    """Name of a table that ships with musweep, or path of a .csv file beside the study."""
    settings: Annotated[dict[str, str], Field(min_length=1)]
    """Forget request (or `*`, the mean over all of them) to what the table calls it. Names of searched knobs in braces
    stand for their values: then every configuration that was searched has its own rows."""
    where: dict[Annotated[str, OneOf(COLUMNS)], str] = Field(default_factory=dict)
    """Column to the value that rows must have, such as `dataset: CIFAR-10`."""
    phase: Annotated[str, OneOf(trial_phases())] = "confirm"
    """Whose runs stand beside it: `confirm`, `sufficient`, `transfer` or `default`; `search` is implied by knobs in
    braces."""
    source: str | None = None
    """Request whose knobs were used; `transfer` only, which needs it."""
    methods: dict[str, str] = Field(default_factory=dict)
    """What the table calls a method to ours, where it is not known already; of a method with an alias, to that."""
    metrics: dict[str, Annotated[str, OneOf(METRICS)]] = Field(default_factory=dict)
    """The same for metrics."""
    deviation: Literal["sample", "population"] | None = None
    """Which standard deviation the table prints, if that is not known of its paper: of n - 1, or of n runs."""

    @model_validator(mode="after")
    def _check(self) -> Published:
        if (self.phase == "transfer") != (self.source is not None):
            raise ValueError("`source` belongs to the phase transfer, which needs it")
        return self


@dataclass(frozen=True)
class Printed:
    """One printed number.

    Args:
        paper, table: Where it is printed.
        forget, phase, source: Which runs of the study stand beside it.
        knobs: Searched knobs of those runs; empty where they are the chosen ones.
        method, metric: What the paper calls them.
        ours, name: What we call them; None where we have no such thing.
        mean, std: In our units (fractions, seconds) where `name` is known; None where none is printed.
        note: What is doubtful about it.
        deviation: Which standard deviation `std` is.
    """

    paper: str
    table: str
    forget: str
    phase: str
    source: str | None
    knobs: Mapping[str, Any]
    method: str
    metric: str
    ours: str | None
    name: str | None
    mean: float | None
    std: float | None
    note: str
    deviation: str


def shipped() -> dict[str, Path]:
    """Return the tables that come with musweep, by name."""
    folder = Path(str(resources.files("sweeps.studies"))) / "papers" / "published"
    return {path.stem: path for path in sorted(folder.glob("*.csv"))}


def find(table: str, folder: Path) -> Path:
    """Return a shipped table, or a file beside the study. Raises StudyError."""
    known = shipped()
    if table in known:
        return known[table]
    path = folder / Path(table).expanduser()
    if path.suffix == ".csv" and path.is_file():
        return path
    raise StudyError(f"no such table {table!r}; give a .csv file or one of {', '.join(known)}")


def printed(
    published: Published,
    requests: Mapping[str, ForgetRequest],
    knobs: Collection[str],
    path: Path,
) -> tuple[Printed, ...]:
    """Return every number of the table that stands for one of the study's requests.

    Args:
        knobs: Those that the study searches.
        path: The table's file.

    Raises:
        StudyError: The file is no such table, a request or knob is unknown, or a setting has no rows.
    """
    rows = [
        row
        for row in _read(path)
        if all(row[column] == value for column, value in published.where.items())
    ]
    numbers: list[Printed] = []
    for forget, setting in published.settings.items():
        if forget not in (*requests, EVERY):
            raise StudyError(
                f"settings: unknown request {forget!r}; there are {', '.join(requests)}"
            )
        whole_class = all(
            request.splits_held_out for name, request in requests.items() if forget in (name, EVERY)
        )
        pattern = _pattern(setting)
        for knob in pattern.groupindex:
            if knob not in knobs:
                raise StudyError(
                    f"settings: {forget}: {{{knob}}} is no searched knob; there are {', '.join(knobs)}"
                )
        matches = [(row, match) for row in rows if (match := pattern.fullmatch(row["setting"]))]
        if not matches:
            there = ", ".join(dict.fromkeys(repr(row["setting"]) for row in rows)) or "no rows"
            where = "".join(f", {k} {v!r}" for k, v in published.where.items())
            raise StudyError(
                f"settings: {forget}: no rows of {setting!r}{where}; there are {there}"
            )
        for row, match in matches:
            values = {k: yaml_file.parse(value, setting) for k, value in match.groupdict().items()}
            numbers.append(_printed(published, row, forget, values, whole_class))
    return tuple(numbers)


def resolve_published(
    tables: Sequence[Published],
    requests: Mapping[str, ForgetRequest],
    knobs: Collection[str],
    where: str,
) -> tuple[list[dict[str, Any]], tuple[Printed, ...]]:
    """Return the printed tables that a study in the file `where` repeats, as plain data and as numbers.

    Args:
        knobs: Those that the study searches.

    Raises:
        StudyError: A table, setting, method or metric is unknown.
    """
    definitions: list[dict[str, Any]] = []
    numbers: list[Printed] = []
    for position, published in enumerate(tables, start=1):
        with errors_at(f"{where}: published: {position}: {published.table}"):
            path = find(published.table, Path(where).parent)
            numbers += printed(published, requests, knobs, path)
        known = published.table in shipped()
        name = published.table if known else str(path.resolve())
        definitions.append(published.model_dump() | {"table": name})
    return definitions, tuple(numbers)


def _pattern(setting: str) -> re.Pattern[str]:
    """Return a setting as a pattern whose groups are the knobs in braces."""
    parts = re.split(r"\{(\w+)\}", setting)
    return re.compile(
        "".join(f"(?P<{p}>[^;]+)" if i % 2 else re.escape(p) for i, p in enumerate(parts))
    )


def _printed(
    published: Published,
    row: Mapping[str, str],
    forget: str,
    knobs: Mapping[str, Any],
    whole_class: bool,
) -> Printed:
    name = published.metrics.get(row["metric"]) or our_metric(
        row["paper"], row["table"], row["metric"], whole_class
    )
    return Printed(
        paper=row["paper"],
        table=row["table"],
        forget=forget,
        phase="search" if knobs else published.phase,
        source=published.source,
        knobs=knobs,
        method=row["method"],
        metric=row["metric"],
        ours=published.methods.get(row["method"]) or our_method(row["method"]),
        name=name,
        mean=_in_our_units(row["mean"], row["metric"], name),
        std=_in_our_units(row["std"], row["metric"], name),
        note=row["note"],
        deviation=published.deviation or ("population" if row["paper"] in POPULATION else "sample"),
    )


def _in_our_units(text: str, metric: str, name: str | None) -> float | None:
    if not text:
        return None
    if name is None or metric in SCALES:
        return float(text) * SCALES.get(metric, 1.0)
    fraction = name == AVG_CHANGE or METRICS[name].unit == "fraction"
    return float(text) / 100 if fraction else float(text)


def our_method(printed_name: str) -> str | None:
    """Return our name of a method, or `original` or `retrain`; None where we have no such method."""
    name = printed_name.casefold()
    if name in PRINTED_REFERENCES:
        return PRINTED_REFERENCES[name]
    ours = METHODS.get(name, name)
    return ours if ours in methods.names() else None


def our_metric(paper: str, table: str, printed_name: str, whole_class: bool) -> str | None:
    """Return our name of what a paper calls a metric, by the vocabulary; None where we have no such metric."""
    if printed_name == "AvgChange":
        return AVG_CHANGE
    spelt = SPELLINGS.get((paper, printed_name), printed_name)
    kind = "class" if whole_class else "random"
    for place in (f"{paper} (Table {table})", f"{paper} ({kind})", paper):
        for name, metric in METRICS.items():
            if metric.names.get(place) == spelt:
                return name
    return None


def _read(path: Path) -> Iterator[dict[str, str]]:
    try:
        with path.open(encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines, restval="")
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or ())]
            if missing:
                raise StudyError(
                    f"{path}: no column `{missing[0]}`; a table has {', '.join(COLUMNS)}"
                )
            yield from _checked(reader, path)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from error


def _checked(rows: Iterable[dict[str, str]], path: Path) -> Iterator[dict[str, str]]:
    for number, row in enumerate(rows, start=2):
        for key in ("mean", "std"):
            try:
                finite = math.isfinite(float(row[key] or 0))
            except (TypeError, ValueError):
                finite = False
            if not finite:
                raise StudyError(f"{path}:{number}: {key} must be a number, but got {row[key]!r}")
        yield row
