"""``musweep init``: a commented study for the data and the model that a folder holds. It asks nothing."""

from __future__ import annotations

import math
import os
import shlex
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mu.data import LOADERS, Dataset, DataSpec, load
from mu.data.decode import Source, open_source
from mu.models import checkpoints
from mu.models.architectures import MODELS, TOKEN_MODELS
from sweeps.errors import StudyError, errors_at, page
from sweeps.study import yaml_file

MARKS = {
    "cifar-10-batches-py": "cifar10",
    "cifar-100-python": "cifar100",
    "train_32x32.mat": "svhn",
    "MNIST/raw": "mnist",
    "FashionMNIST/raw": "fashion_mnist",
    "tiny-imagenet-200": "tiny_imagenet",
    "tiny-imagenet-200.zip": "tiny_imagenet",
    "20news-bydate_py3.pkz": "20newsgroups",
}
"""File or folder to the data set that it belongs to."""
SIDES = (224, 128, 64, 32)
"""Sides to which images of different sizes are brought: the largest that their median reaches."""
LOOKED_AT = 50
"""Images whose size is read."""
METHODS = ("finetune", "amnesiac", "natmu", "salun", "ssd", "ugradsl_plus")
"""Methods for images that work on every request, among them one of each family."""
VAL_SAMPLES = 2
"""Held-out samples of a class that a first run in small should have, at least; also of the class that is forgotten."""
TEXT_METHODS = ("finetune", "amnesiac", "salun", "ssd", "ugradsl_plus")
TEMPLATE = """\
# Written by `musweep init`; {study_page} has every key. Check it: musweep run {file} --dry-run
{first_run}study: {name}
data: {data}
# The network{model_note}.
model: {model}
{original}\
# How originals and retrained models are trained. Use the recipe of your own model; it must learn the data well.
training: {{epochs: 30, optimizer: sgd, lr: 0.05, weight_decay: 5.0e-4, batch_size: {batch}, schedule: onecycle, augment: {augment}}}
# What must be forgotten: a random part, another draw of it to see whether knobs transfer, and a class.
# Positions of your own: {{kind: indices, file: forget.npy}}
forget:
  random10: {{kind: random, fraction: 0.10}}
  random10b: {{kind: random, fraction: 0.10, draw: 1}}
  {first_class}: {{kind: full_class, class: {class_name}}}
# `musweep methods` lists all of them. Their ranges are searched; `fix: {{...}}` sets knobs, `space: {{...}}` other ranges.
methods: [{methods}]
# Knobs are tuned on the search seeds and reported on others, against as many retrained models as `retrain` says.
seeds: {{search: [0], report: [1, 2, 3], retrain: 10}}
search: {{trials: 20, sampler: tpe}}
experiments:
  sufficient: {{epochs: 20}}      # the best knobs with more epochs
  transfer: [[random10, random10b], [random10b, random10]]  # the best knobs on the other draw
resources: {{cpus: 1{gpus}}}
"""


@dataclass(frozen=True)
class Place:
    """What `musweep init` looks at.

    Args:
        folder: Where checkpoints are looked for; None where a data set was named.
        data: The data set, as a study has it.
    """

    folder: Path | None
    data: dict[str, Any]


@dataclass(frozen=True)
class Draft:
    """The study that `musweep init` writes.

    Args:
        text: Of its file.
        command: What to run first.
    """

    text: str
    command: str


def draft(place: str, file: str) -> Draft:
    """Return a study for a folder or .zip of data, or for a data set by name.

    Args:
        file: The study file, for its comments and the command.

    Raises:
        StudyError: No data set is there, or its files cannot be read.
    """
    looked = _look(place)
    try:
        data = load(DataSpec(**looked.data))
    except (OSError, ValueError) as error:
        raise StudyError(f"{place}: {error}") from error
    image = data.images
    model, note, original = _model(looked, data)
    held_out = np.bincount(data.parts["val"].labels, minlength=len(data.classes))
    first = data.classes[np.argmax(held_out >= min(VAL_SAMPLES, held_out.max()))]
    plain = first.replace("-", "").replace("_", "").isalnum() and first.isascii()
    colour = image and data.input_shape[0] == 3
    gpu = torch.cuda.is_available()
    command, share = f"musweep run {shlex.quote(file)}", _sample_share(int(held_out.min()))
    small = f"{command} --sample {share:g}" if share else command
    seen = f"# See that all of it works, in minutes: {small}\n" if share else ""
    text = TEMPLATE.format(
        file=file,
        first_run=seen,
        study_page=page("study"),
        name=_name(place),
        data=yaml_file.one_line(looked.data),
        model=model,
        model_note=note,
        original=original,
        batch=64 if len(data.parts["train"]) < 10_000 else 256,
        augment="crop_flip" if colour else "none",
        first_class=f"class_{first}" if plain else "first_class",
        class_name=yaml_file.one_line(first),
        methods=", ".join(METHODS if image else TEXT_METHODS),
        gpus=", gpus: 0.5" if gpu else "",
    )
    return Draft(text, small)


def _sample_share(held_out: int) -> float | None:
    """Return the share of the training images for a first run in small; None where only more than half would do.

    Args:
        held_out: `val` samples of the class that has the fewest.
    """
    share = math.ceil(20 * VAL_SAMPLES / max(held_out, 1)) / 20
    return share if share <= 0.5 else None


def _look(place: str) -> Place:
    """Return what lies at a place: a data set in its published layout, else images sorted into classes."""
    path = Path(place).expanduser()
    if not path.exists():
        if place not in LOADERS:
            raise StudyError(
                f"{place}: is neither a folder, nor a .zip, nor a data set; there are {', '.join(LOADERS)}"
            )
        root = {} if place == "digits" else {"root": f"~/data/{place}"}
        return Place(None, {"name": place, **root})
    folder = path if path.is_dir() else path.parent
    for mark, name in MARKS.items():
        if path.is_dir() and (path / mark).exists():
            return Place(folder, {"name": name, "root": _shown(path)})
    with errors_at():
        source = open_source(path)
    classes = {Path(name).parent.name for name in source.names if "/" in name}
    if len(classes) < 2:
        raise StudyError(
            f"{place}: has no images below folders of at least two classes; the layout must be "
            f"{{train,test}}/<class>/<image> or <class>/<image>, or that of a data set: see {page('data')}"
        )
    parts = {part for name in source.names for part in Path(name).parts[:-2]}
    sizes = {"size": size} if (size := _common_side(source)) else {}
    split = {} if parts & {"test", "val"} else {"test": 0.2}
    return Place(folder, {"name": "image_folder", "root": _shown(path), **sizes, **split})


def _common_side(source: Source) -> int | None:
    """Return the side to which images are resized; None where all that were looked at are small and of one size."""
    from PIL import Image

    step = max(1, len(source.names) // LOOKED_AT)
    sizes = [Image.open(BytesIO(source.read(name))).size for name in source.names[::step]]
    side = statistics.median(min(size) for size in sizes)
    if len(set(sizes)) == 1 and sizes[0][0] == sizes[0][1] and side <= SIDES[0]:
        return None
    return next((each for each in SIDES if each <= side), SIDES[-1])


def _model(place: Place, data: Dataset) -> tuple[str, str, str]:
    """Return the network, a remark on it, and the lines of the key `original`."""
    tokens = not data.images
    network = (
        "embedding_bag" if tokens else "resnet18" if torch.cuda.is_available() else "small_cnn"
    )
    note = "" if tokens else "; `resnet18` wants a GPU, `small_cnn` trains on a laptop"
    for path in _checkpoints(place.folder):
        fitting = _fitting(path, data)
        if fitting:
            line = (
                f"# A trained model: it is what methods start from, and should not have seen `val` and test images.\n"
                f"original: {yaml_file.one_line(_shown(path))}\n"
            )
            return fitting, f", which {path.name} fits", line
        line = f"# {path.name} fits no network by name; for one of your own see {page('models')}.\n"
        return network, note, line
    return network, note, ""


def _checkpoints(folder: Path | None) -> Iterator[Path]:
    """Yield the files of a folder that may be checkpoints, by name."""
    if folder is not None:
        yield from sorted(p for p in folder.iterdir() if p.suffix in (".pt", ".pth"))


def _fitting(path: Path, data: Dataset) -> str | None:
    """Return the network by name that a checkpoint fits; None where it fits none, or is no checkpoint."""
    try:
        state = checkpoints.read(path)
    except ValueError:
        return None
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    for name, factory in MODELS.items():
        if (name in TOKEN_MODELS) == data.images:
            continue
        try:
            with torch.device("meta"):
                network = factory(data.network_shape, len(data.classes))
        except Exception:  # networks refuse shapes in ways of their own
            continue
        if {key: tuple(value.shape) for key, value in network.state_dict().items()} == shapes:
            return name
    return None


def _shown(path: Path) -> str:
    """Return a path as a study should have it: absolute, with `~` for the user's own folder."""
    absolute, home = os.path.abspath(path), os.path.expanduser("~")
    return "~" + absolute[len(home) :] if absolute.startswith(home + os.sep) else absolute


def _name(place: str) -> str:
    stem = Path(os.path.abspath(os.path.expanduser(place))).name.removesuffix(".zip")
    kept = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in stem)
    return kept.strip("._-") or "study"
