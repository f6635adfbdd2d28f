"""YAML as plain data: numbers as people write them, no duplicate keys, errors that name the file."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Hashable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sweeps.errors import StudyError

try:  # in C it takes a fifth of the time
    from yaml import CSafeLoader as SafeLoader
except ImportError:
    from yaml import SafeLoader  # type: ignore[assignment]


class _Loader(SafeLoader):
    """A loader of plain data only: a key given twice is an error, and `1e-5` is the number it means."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                line = key_node.start_mark.line + 1
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} is given twice (line {line})", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?[0-9]+(?:\.[0-9]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


LARGEST = 100_000
"""Most values in a file, aliases written out; a study has hundreds."""
EDITOR_LINE = "# yaml-language-server:"
"""How the line begins that tells editors where the schema of the file is."""


def _size(node: yaml.Node, known: dict[int, float]) -> float:
    """Return how many values a node stands for, aliases written out; infinite when it holds itself."""
    if id(node) not in known:
        known[id(node)] = math.inf
        inner: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            inner = node.value
        elif isinstance(node, yaml.MappingNode):
            inner = [each for pair in node.value for each in pair]
        known[id(node)] = 1 + sum(_size(each, known) for each in inner)
    return known[id(node)]


def parse(text: str, where: str) -> Any:
    """Parse YAML text.

    Raises:
        StudyError: It is not YAML; the message names `where` and the line.
    """
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > LARGEST:
            raise StudyError(f"{where}: its aliases expand to more than {LARGEST} values")
        return loader.construct_document(node)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}:" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        if "for the tag" in problem:
            problem += "; a study is plain data, without tags"
        raise StudyError(f"{where}:{line} not valid YAML: {problem}") from error


def read(path: Path) -> Any:
    """Parse a YAML file. Raises StudyError when it cannot be read or parsed."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"{path}: cannot be read: {error}") from error
    return parse(text, str(path))


def read_study(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the content of a study file, laid over its base and with parts replaced.

    Args:
        overrides: ``key.subkey=value`` texts.

    Raises:
        StudyError: The file, its base or an override cannot be read.
    """
    raw = read(path)
    if not isinstance(raw, dict):
        raise StudyError(
            f"{path}: must be a mapping with `study`, `forget`, `methods` and other keys, but got {raw!r:.80}"
        )
    if "base" in raw:
        raw = _with_base(raw, path)
    return with_overrides(raw, overrides)


def with_overrides(raw: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of a study's content with parts replaced. Raises StudyError for a text that is no override."""
    replaced = copy.deepcopy(dict(raw))
    for text in overrides:
        _override(replaced, text)
    return replaced


def _with_base(raw: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return a study laid over the file it is based on, key by key of the outermost level."""
    name = raw["base"]
    if not isinstance(name, str):
        raise StudyError(f"{path}: base: must be a file beside this one, but got {name!r}")
    below = read(path.parent / name)
    if not isinstance(below, dict) or "base" in below:
        raise StudyError(f"{path}: base: {name} must be a mapping without a `base` of its own")
    return {**below, **{key: value for key, value in raw.items() if key != "base"}}


def _override(raw: dict[str, Any], text: str) -> None:
    """Replace the value that a text such as ``search.trials=5`` names."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise StudyError(f"-o {text}: must be key=value, such as search.trials=5")
    *path, last = key.split(".")
    target = raw
    for part in path:
        target = target.setdefault(part, {})
        if not isinstance(target, dict):
            raise StudyError(f"-o {text}: `{part}` is not a mapping")
    target[last] = parse(value, f"-o {text}")


def shipped_studies() -> dict[str, Path]:
    """Return the studies that come with musweep, by name, such as `demo` and `papers/natmu_table3_cifar10`."""
    folder = Path(str(resources.files("sweeps.studies")))
    paths = (path for path in sorted(folder.rglob("*.yaml")) if not path.name.startswith("_"))
    found = {path.relative_to(folder).with_suffix("").as_posix(): path for path in paths}
    return dict(sorted(found.items(), key=lambda item: ("/" in item[0], item[0])))


def find_study(name: str) -> Path:
    """Return the path of a study file that is given as a path, or as the name of one that ships with musweep.

    Raises:
        StudyError: There is no such file.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    shipped = shipped_studies()
    if name.removesuffix(".yaml") in shipped:
        return shipped[name.removesuffix(".yaml")]
    own = ", ".join(known for known in shipped if "/" not in known)
    raise StudyError(
        f"{name}: no such study file; musweep ships {own} and those of papers (`musweep studies`)"
    )


def method_folders(path: Path | None) -> list[Path]:
    """Return the folders with methods of one's own. Raises StudyError when `path` is not a folder."""
    if path is not None and not path.is_dir():
        raise StudyError(f"--methods-path {path}: is not a folder")
    return [path] if path is not None else []


def first_comment(path: Path) -> str:
    """Return what a study says of itself: its first comment that is not for editors, without the sign."""
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            if not line.startswith("#"):
                return ""
            if not line.startswith(EDITOR_LINE):
                return line.removeprefix("#").strip()
    return ""


def one_line(value: Any) -> str:
    """Return a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("\n...\n").strip()
