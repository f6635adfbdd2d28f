"""The study file as frozen dataclasses. Every error in it is found here, before anything starts."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from mu import forget, methods, metrics, models
from mu.data import Dataset, DataSpec, load
from mu.evaluate import COSTLY
from mu.forget import ForgetRequest
from mu.methods import Method
from mu.models import Model, ModelSpec
from mu.problem import Problem, Role
from mu.ranking import early_epochs
from mu.training import Recipe
from sweeps import checkpoints, files, operation, published, space
from sweeps.checkpoints import PLACES, Brought, Checkpoint
from sweeps.fields import build, known, plain
from sweeps.files import StudyError
from sweeps.operation import Operation, Resources
from sweeps.published import Printed, Published
from sweeps.space import Range

SAMPLERS = ("tpe", "random", "grid")
EARLY_STOPS = ("collapse", "none", "asha")
SELECTIONS = ("honest", "paper")
COSTLY_PHASES = ("search", "default", "confirm", "sufficient", "transfer")
_IN_TRIALS = {name: m for name, m in metrics.METRICS.items() if m.when == "trial"}
OBJECTIVES = (*(name for name, m in _IN_TRIALS.items() if m.better == "lower"), "mean_gap")
GAPPED = tuple(
    name
    for name, m in _IN_TRIALS.items()
    if m.better == "target" and name != "entropy_median_diff"  # which is itself a comparison
)


@dataclass(frozen=True)
class Tuned:
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


@dataclass(frozen=True)
class Search:
    """How each cell is searched.

    Args:
        trials: Configurations per cell, the same for every method; of a grid, how many points it has.
        sampler: `tpe`, `random`, or `grid`, which tries every combination of `choices` and of values a `step` apart.
        objective: Metrics to minimise on the `val` view; the first decides which knobs are best.
        mean_gap: Metrics whose mean gap the objective `mean_gap` is.
        early_stop: `collapse` ends a trial whose model is destroyed; `asha` ends also those that are behind
            others of their cell, for methods that improve steadily; `none` only ends what diverged.
    """

    trials: int = 30
    sampler: str = "tpe"
    objective: tuple[str, ...] = ("avg_gap_natmu",)
    early_stop: str = "collapse"
    mean_gap: tuple[str, ...] = ()


@dataclass(frozen=True)
class Metrics:
    """What is computed beyond the metrics that every trial has.

    Args:
        costly: Phases whose trials also get the costly attacks and the diagnostics of a method's own work;
            references get the attacks whenever any phase does.
        attacks: Which attacks, of ``mu.evaluate.COSTLY``.
    """

    costly: tuple[str, ...] = ("confirm",)
    attacks: tuple[str, ...] = ("svc", "starting_kit")


@dataclass(frozen=True)
class Audit:
    """Attacks that need many models (U-LiRA, RMIA, the challenge's F-score), on confirmed knobs.

    Args:
        models: Least number of report seeds, K; 0 leaves the audit out. U-LiRA needs 9: 8 besides the attacked.
    """

    models: int = 0


@dataclass(frozen=True)
class Experiments:
    """What is tried with the tuned knobs, beyond confirming them.

    Args:
        sufficient: Number of epochs of the sufficient-training experiment; None leaves it out.
        transfer: Pairs (source, target) of forget requests: knobs tuned on the one, used on the other.
        defaults: Whether the authors' knobs (or those the study fixes) are run beside the tuned ones.
    """

    sufficient: int | None = None
    transfer: tuple[tuple[str, str], ...] = ()
    defaults: bool = True


@dataclass(frozen=True)
class Study:
    """A whole study, validated. ``definition`` is the same as plain data."""

    name: str
    data: DataSpec
    model: Model
    training: Recipe
    forget: Mapping[str, ForgetRequest]
    methods: tuple[Tuned, ...]
    search_seeds: tuple[int, ...]
    report_seeds: tuple[int, ...]
    search: Search
    experiments: Experiments
    operation: Operation
    metrics: Metrics
    audit: Audit
    selection: str
    published: tuple[Printed, ...]
    brought: Brought
    definition: Mapping[str, Any] = field(repr=False)

    @property
    def search_view(self) -> str:
        """What the search looks at: `val`, or `test` when knobs are selected as the papers do."""
        return "test" if self.selection == "paper" else "val"

    def checkpoints(self, forget: str, seed: int) -> dict[Role, Checkpoint]:
        """The models that are brought for a problem, by role."""
        return {
            role: self.brought[role, forget, seed]
            for role in PLACES
            if (role, forget, seed) in self.brought
        }

    def problem(
        self, data: Dataset, forget: str, seed: int, chosen: NDArray[np.int64] | None = None
    ) -> Problem:
        """One of the study's problems, on its data; see ``mu.problem.Problem``."""
        brought = {role: found.digest for role, found in self.checkpoints(forget, seed).items()}
        request = self.forget[forget]
        return Problem(data, self.model, self.training, request, seed, chosen, brought)

    @property
    def resources(self) -> Resources:
        return self.operation.resources

    def tuned(self, name: str) -> Tuned:
        return next(tuned for tuned in self.methods if tuned.name == name)


KEYS = (
    "study",
    "data",
    "model",
    "original",
    "retrain",
    "training",
    "forget",
    "methods",
    "seeds",
    "search",
    "experiments",
    "metrics",
    "audit",
    "selection",
    "published",
    *operation.KEYS,
)


def read(
    path: Path,
    overrides: Sequence[str] = (),
    folders: Sequence[Path] = (),
    own_code: bool = False,
) -> Study:
    """Read and validate a study file.

    Args:
        overrides: ``key.subkey=value`` texts that replace parts of it.
        folders: Where else methods are looked for.
        own_code: Whether its model may be an import path, which runs the module that it names.

    Raises:
        StudyError: Something in it is wrong; the message names file, key, value and what is allowed.
    """
    raw = files.read(path)
    if not isinstance(raw, dict):
        raise StudyError(f"{path}: must be a mapping with {', '.join(KEYS)}")
    if "base" in raw:
        raw = _with_base(raw, path)
    for text in overrides:
        _override(raw, text)
    model = raw.get("model")
    name = model.get("name") if isinstance(model, dict) else model
    if isinstance(name, str) and ":" in name and not own_code:
        raise StudyError(
            f"{path}: model: {name!r} is code, which a study alone may not choose to run; name the folder "
            "it lies in with --code-path (any folder for a package that is installed)"
        )
    return parse(raw, str(path), folders)


def _with_base(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """A study laid over the file it is based on, key by key of the outermost level."""
    name = raw["base"]
    if not isinstance(name, str):
        raise StudyError(f"{path}: base: must be a file beside this one, but got {name!r}")
    below = files.read(path.parent / name)
    if not isinstance(below, dict) or "base" in below:
        raise StudyError(f"{path}: base: {name} must be a mapping without a `base` of its own")
    return {**below, **{key: value for key, value in raw.items() if key != "base"}}


def _override(raw: dict[str, Any], text: str) -> None:
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise StudyError(f"-o {text}: must be key=value, such as search.trials=5")
    *path, last = key.split(".")
    target = raw
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise StudyError(f"-o {text}: `{part}` is not a mapping")
    target[last] = files.parse(value, f"-o {text}")


def parse(raw: Mapping[str, Any], where: str, folders: Sequence[Path] = ()) -> Study:
    """Validate a study given as plain data. Raises StudyError."""
    known(raw, KEYS, where)
    name = raw.get("study")
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
        raise StudyError(
            f"{where}: study: must be a name of letters, digits, `.`, `_`, `-`, but got {name!r}"
        )
    data = raw.get("data", "digits")
    data_spec = build(DataSpec, {"name": data} if isinstance(data, str) else data, f"{where}: data")
    model_spec, model = _model(raw.get("model", "small_cnn"), where)
    recipe = build(Recipe, raw.get("training", {}), f"{where}: training")
    requests = _requests(raw.get("forget"), f"{where}: forget")
    tuned = _methods(raw.get("methods"), requests, f"{where}: methods", folders)
    selection = raw.get("selection", "honest")
    if selection not in SELECTIONS:
        raise StudyError(
            f"{where}: selection must be one of {', '.join(SELECTIONS)}, but got {selection!r}"
        )
    search_seeds, report_seeds = _seeds(
        raw.get("seeds", {}), f"{where}: seeds", apart=selection == "honest"
    )
    every_seed = tuple(dict.fromkeys((*search_seeds, *report_seeds)))
    brought = checkpoints.find(raw, requests, every_seed, where)
    search = _search(raw.get("search", {}), f"{where}: search")
    if search.sampler == "grid":
        search = _grid(search, tuned, "trials" in raw["search"], f"{where}: search")
    experiments = _experiments(raw.get("experiments", {}), requests, f"{where}: experiments")
    extra = build(Metrics, raw.get("metrics", {}), f"{where}: metrics")
    for phase in extra.costly:
        if phase not in COSTLY_PHASES:
            raise StudyError(
                f"{where}: metrics: costly must hold some of {', '.join(COSTLY_PHASES)}, "
                f"but got {phase!r}"
            )
    for group in extra.attacks:
        if group not in COSTLY:
            raise StudyError(
                f"{where}: metrics: attacks must hold some of {', '.join(COSTLY)}, but got {group!r}"
            )
    audit = build(Audit, raw.get("audit", {}), f"{where}: audit")
    if audit.models and not 2 <= audit.models <= len(report_seeds):
        raise StudyError(
            f"{where}: audit: models must be 0, or in [2, {len(report_seeds)}] (the report seeds), "
            f"but got {audit.models}"
        )
    running = operation.parse(raw, where)
    if running.resources.trial.gpus and "precision" not in raw.get("training", {}):
        recipe = replace(recipe, precision="bf16")
    attached, numbers = _published(raw.get("published"), requests, tuned, where)
    definition = {
        "study": name,
        "data": {k: v for k, v in plain(data_spec).items() if v not in (None, [])},
        "model": _plain_model(model_spec),
        **{str(role): raw[role] for role in PLACES if raw.get(role) is not None},
        "training": plain(recipe),
        "forget": {key: _plain_request(request) for key, request in requests.items()},
        "methods": [_plain_method(t) for t in tuned],
        "seeds": {"search": list(search_seeds), "report": list(report_seeds)},
        "search": plain(search),
        "experiments": {
            "sufficient": {"epochs": experiments.sufficient} if experiments.sufficient else None,
            "transfer": plain(experiments.transfer),
            "defaults": experiments.defaults,
        },
        "metrics": plain(extra),
        "audit": plain(audit),
        "selection": selection,
        "published": attached,
        **running.plain,
    }
    return Study(
        name,
        data_spec,
        model,
        recipe,
        requests,
        tuned,
        search_seeds,
        report_seeds,
        search,
        experiments,
        running,
        extra,
        audit,
        selection,
        numbers,
        brought,
        definition,
    )


def load_data(study: Study, where: str, cache: Path | None = None) -> Dataset:
    """Load the study's data, and check every forget request and the model against it.

    Raises:
        StudyError: The data cannot be loaded; a request selects nothing, everything, or an unknown class; or the
            model, or a checkpoint of it, does not fit the data.
    """
    try:
        data = load(study.data, cache)
    except ValueError as error:
        raise StudyError(f"{where}: {error}") from error
    stand_ins: dict[str, Problem] = {}
    for name, request in study.forget.items():
        try:
            stand_ins[name] = _problem(study, data, name, forget.stand_in(request, data))
            if request.kind == "hardest":
                early_epochs(stand_ins[name])
        except ValueError as error:
            raise StudyError(f"{where}: forget: {name}: {error}") from error
    if study.training.augment != "none" and not data.images:
        raise StudyError(
            f"{where}: training: augment: {study.training.augment} changes images, but {data.name} holds "
            "tokens; leave it out, or `none`"
        )
    model = checkpoints.check(study, data, where)
    for tuned in study.methods:
        if "twin" in tuned.method.needs and len(data.parts["twin"]) == 0:
            raise StudyError(
                f"{where}: methods: {tuned.name} needs held-out data of its own; set data.twin, "
                "such as 0.1"
            )
        _check_problems(tuned, model, stand_ins, f"{where}: methods: {tuned.name}")
    return data


def _problem(study: Study, data: Dataset, name: str, chosen: NDArray[np.int64]) -> Problem:
    return Problem(data, study.model, study.training, study.forget[name], 0, chosen)


def _check_problems(
    tuned: Tuned, model: nn.Module, problems: Mapping[str, Problem], where: str
) -> None:
    """Ask the method itself whether it can work on the requests it is used on; one model serves them all."""
    if tuned.method.check_problem is None:
        return
    for name in tuned.forget:
        problem = problems[name]
        try:
            tuned.method.check_problem(model, problem.split().only(tuned.method.data))
        except ValueError as error:
            raise StudyError(f"{where}: {name}: {error}") from error


def _model(raw: Any, where: str) -> tuple[ModelSpec, Model]:
    spec = build(ModelSpec, {"name": raw} if isinstance(raw, str) else raw, f"{where}: model")
    try:
        return spec, models.resolve(spec)
    except ValueError as error:
        raise StudyError(f"{where}: model: {error}") from error


def _requests(raw: Any, where: str) -> dict[str, ForgetRequest]:
    if not isinstance(raw, dict) or not raw:
        raise StudyError(f"{where}: must name at least one forget request, but got {raw!r}")
    requests = {}
    for name, content in raw.items():
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", name):
            raise StudyError(f"{where}: {name!r}: must be a name of letters, digits, `.`, `_`, `-`")
        if isinstance(content, dict) and "class" in content:
            # YAML reads the class `3` as a number; classes are names.
            content = {key: value for key, value in content.items() if key != "class"} | {
                "target": str(content["class"])
            }
        requests[name] = build(
            ForgetRequest, content, f"{where}: {name}", renamed={"target": "class"}
        )
    return requests


def _methods(
    raw: Any, requests: Mapping[str, ForgetRequest], where: str, folders: Sequence[Path]
) -> tuple[Tuned, ...]:
    if not isinstance(raw, list) or not raw:
        raise StudyError(f"{where}: must list at least one method, but got {raw!r}")
    tuned: list[Tuned] = []
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
) -> Tuned:
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
    return Tuned(method, fixed, kept, requests)


def _seeds(raw: Any, where: str, apart: bool) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Search and report seeds; `apart` refuses a seed that is in both."""
    if not isinstance(raw, dict):
        raise StudyError(f"{where}: must be {{search: [...], report: [...]}}, but got {raw!r}")
    known(raw, ("search", "report"), where)
    found = []
    for key, default in (("search", [0]), ("report", [1, 2, 3])):
        seeds = raw.get(key, default)
        whole = isinstance(seeds, list) and all(type(s) is int and s >= 0 for s in seeds)
        if not whole or not seeds or len(set(seeds)) < len(seeds):
            raise StudyError(
                f"{where}: {key}: must be a list of different whole numbers, but got {seeds!r}"
            )
        found.append(tuple(seeds))
    shared = sorted(set(found[0]) & set(found[1]))
    if shared and apart:
        raise StudyError(
            f"{where}: seed {shared[0]} is in both `search` and `report`; knobs must be reported on "
            "seeds they were not tuned on"
        )
    return found[0], found[1]


def _search(raw: Any, where: str) -> Search:
    objective = raw.get("objective") if isinstance(raw, dict) else None
    if isinstance(objective, str):
        raw = {**raw, "objective": [objective]}
    elif isinstance(objective, dict):
        known(objective, ("mean_gap",), f"{where}: objective")
        raw = {**raw, "objective": ["mean_gap"], **objective}
    search = build(Search, raw, where)
    if search.trials < 1:
        raise StudyError(f"{where}: trials must be at least 1, but got {search.trials}")
    for key, allowed in (("sampler", SAMPLERS), ("early_stop", EARLY_STOPS)):
        if getattr(search, key) not in allowed:
            raise StudyError(
                f"{where}: {key} must be one of {', '.join(allowed)}, "
                f"but got {getattr(search, key)!r}"
            )
    for name in search.objective:
        if name not in OBJECTIVES:
            raise StudyError(
                f"{where}: objective must be one of {', '.join(OBJECTIVES)}, but got {name!r}"
            )
    for name in search.mean_gap:
        if name not in GAPPED:
            raise StudyError(
                f"{where}: mean_gap must hold some of {', '.join(GAPPED)}, but got {name!r}"
            )
    if ("mean_gap" in search.objective) != bool(search.mean_gap):
        raise StudyError(
            f"{where}: the objective mean_gap needs its list of metrics, such as "
            "{mean_gap: [acc_test, acc_forget]}"
        )
    if not search.objective:
        raise StudyError(f"{where}: objective must name at least one metric")
    if search.early_stop == "asha" and len(search.objective) > 1:
        raise StudyError(f"{where}: early_stop asha compares one objective, but there are several")
    return search


def _grid(search: Search, tuned: Sequence[Tuned], given: bool, where: str) -> Search:
    """The search with as many trials as its grid has points."""
    sizes = {}
    for method in tuned:
        try:
            sizes[method.name] = len(space.grid(method.ranges, method.fixed))
        except ValueError as error:
            raise StudyError(f"{where}: sampler grid: {method.name}: {error}") from error
    first = next(iter(sizes.values()))
    if set(sizes.values()) != {first} or (given and search.trials != first):
        points = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise StudyError(
            f"{where}: sampler grid needs a grid of `trials` points for every method, but got {points}"
        )
    return dataclasses.replace(search, trials=first)


def _experiments(raw: Any, requests: Mapping[str, ForgetRequest], where: str) -> Experiments:
    if not isinstance(raw, dict):
        raise StudyError(f"{where}: must be a mapping, but got {raw!r}")
    known(raw, ("sufficient", "transfer", "defaults"), where)
    epochs = None
    if raw.get("sufficient") is not None:
        sufficient = raw["sufficient"]
        epochs = sufficient.get("epochs") if isinstance(sufficient, dict) else sufficient
        if type(epochs) is not int or epochs < 1:
            raise StudyError(
                f"{where}: sufficient: must be {{epochs: n}} with n at least 1, but got {sufficient!r}"
            )
    pairs = raw.get("transfer") or []
    if pairs == "all":
        pairs = [[s, t] for s in requests for t in requests if s != t]
    if not isinstance(pairs, list):
        raise StudyError(f"{where}: transfer: must be `all` or a list of [source, target]")
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2:
            raise StudyError(f"{where}: transfer: must hold [source, target], but got {pair!r}")
        for name in pair:
            if name not in requests:
                raise StudyError(
                    f"{where}: transfer: unknown request {name!r}; there are {', '.join(requests)}"
                )
        if pair[0] == pair[1]:
            raise StudyError(f"{where}: transfer: source and target are both {pair[0]!r}")
    defaults = raw.get("defaults", True)
    if not isinstance(defaults, bool):
        raise StudyError(f"{where}: defaults: must be true or false, but got {defaults!r}")
    transfer = tuple((str(source), str(target)) for source, target in pairs)
    return Experiments(epochs, transfer, defaults)


def _published(
    raw: Any, requests: Mapping[str, ForgetRequest], tuned: Sequence[Tuned], where: str
) -> tuple[list[dict[str, Any]], tuple[Printed, ...]]:
    """The printed tables a study repeats, as plain data and as numbers."""
    if raw is not None and not isinstance(raw, list):
        raise StudyError(f"{where}: published: must be a list of tables, but got {raw!r}")
    attached: list[dict[str, Any]] = []
    numbers: list[Printed] = []
    knobs = dict.fromkeys(span.knob for method in tuned for span in method.ranges)
    for position, entry in enumerate(raw or [], start=1):
        here = f"{where}: published: {position}"
        table = build(Published, entry, here)
        try:
            path = published.find(table.table, Path(where).parent)
            numbers += published.printed(table, requests, knobs, path)
        except StudyError as error:
            raise StudyError(f"{here}: {table.table}: {error}") from error
        known = table.table in published.shipped()
        attached.append(plain(table) | {"table": table.table if known else str(path.resolve())})
    return attached, tuple(numbers)


def _plain_model(spec: ModelSpec) -> str | dict[str, Any]:
    found = {key: item for key, item in plain(spec).items() if item is not None}
    return found if len(found) > 1 else spec.name


def _plain_request(request: ForgetRequest) -> dict[str, Any]:
    found = {"class" if key == "target" else key: item for key, item in plain(request).items()}
    return {key: item for key, item in found.items() if item is not None}


def _plain_method(tuned: Tuned) -> dict[str, Any]:
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
