"""A small package that brings a method and a model, installed as users install one, into a folder of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PYPROJECT = """\
[build-system]
requires = ["setuptools"]
build-backend = "setuptools.build_meta"

[project]
name = "gentle-unlearning"
version = "1.2"

[project.entry-points."musweep.methods"]
gentle = "gentle_unlearning.gentle"
finetune = "gentle_unlearning.gentle"
broken = "gentle_unlearning.broken"
absent = "gentle_unlearning.absent"
no_module = "gentle_unlearning.gentle:unlearn"

[project.entry-points."musweep.models"]
narrow = "gentle_unlearning.nets:build"
lost_net = "gentle_unlearning.nets:nothing"

[tool.setuptools]
packages = ["gentle_unlearning"]

[tool.setuptools.package-data]
gentle_unlearning = ["*.yaml"]
"""
GENTLE = '''"""Gentle: a few slow steps on D_r.

Paper: none. Reference: none. Differs: nothing. Cost: little.
"""

from __future__ import annotations

from mu.knobs import Count, Positive
from mu.training import Hyperparameters, fit

from .rates import slowed

NEEDS = ("retain",)


def unlearn(model, split, generator, *, lr: Positive = 0.05, epochs: Count = 1):
    """Train on D_r; yield after each epoch."""
    given = Hyperparameters(epochs=epochs, batch_size=64, lr=slowed(lr))
    yield from fit(model, split.retain, generator, given)
'''
FILES = {
    "__init__.py": "",
    "gentle.py": GENTLE,
    "gentle.yaml": "lr: {low: 1.0e-3, high: 1.0e-1, log: true}\n",
    "rates.py": "def slowed(lr):\n    return lr / 2\n",
    "broken.py": "raise RuntimeError('no such card')\n",
    "nets.py": '''"""A network."""

from torch import nn


def build(num_classes, input_shape):
    """Build one hidden layer."""
    inputs = 1
    for side in input_shape:
        inputs *= side
    return nn.Sequential(nn.Flatten(), nn.Linear(inputs, 32), nn.ReLU(), nn.Linear(32, num_classes))
''',
}


def install(source: Path, target: Path) -> Path:
    """Write the package below `source`, and install it with pip into `target`, which then belongs on the import path."""
    package = source / "gentle_unlearning"
    package.mkdir(parents=True)
    (source / "pyproject.toml").write_text(PYPROJECT, encoding="utf-8")
    for name, text in FILES.items():
        (package / name).write_text(text, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    options = ["--no-index", "--disable-pip-version-check", "--target", str(target)]
    subprocess.run([*pip, *options, str(source)], check=True, timeout=300, capture_output=True)
    return target
