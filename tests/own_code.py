"""A user's folder of code: a package of networks, and a module beside it."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent
from uuid import uuid4

FILES = {
    "{package}/__init__.py": "",
    "{package}/layers.py": """
        from torch import nn

        WIDTH = 8


        class Block(nn.Module):
            def __init__(self, inputs, outputs):
                super().__init__()
                self.conv = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
                self.norm = nn.GroupNorm(2, outputs)
                self.act = nn.ReLU()

            def forward(self, images):
                return self.act(self.norm(self.conv(images)))
    """,
    "{package}/nets.py": """
        import torch
        from torch import nn

        from {package}_tools import flat

        from .layers import WIDTH, Block


        class Net(nn.Module):
            def __init__(self, channels, num_classes):
                super().__init__()
                self.body = nn.Sequential(Block(channels, WIDTH), Block(WIDTH, 2 * WIDTH))
                self.fc = nn.Linear(2 * WIDTH, num_classes)

            def forward(self, images):
                return self.fc(flat(self.body(images)))


        def build(num_classes, input_shape):
            return Net(input_shape[0], num_classes)


        def forgets_classes(num_classes, input_shape):
            return Net(input_shape[0], num_classes + 1)


        def gives_a_tuple(num_classes, input_shape):
            class Pair(Net):
                def forward(self, images):
                    return super().forward(images), images

            return Pair(input_shape[0], num_classes)


        def returns_nothing(num_classes, input_shape):
            pass


        def crashes(num_classes, input_shape):
            return nn.Conv2d(7, num_classes, 3)


        NUMBER = 3
    """,
    "{package}_tools.py": """
        def flat(images):
            return images.mean((2, 3))
    """,
    "unrelated_{package}.py": "raise RuntimeError('never imported')",
}


def write(folder: Path) -> str:
    """Write the files under names that no other test has imported; return the package's name."""
    package = f"nets_{uuid4().hex[:8]}"
    for name, text in FILES.items():
        path = folder / name.replace("{package}", package)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text).replace("{package}", package), encoding="utf-8")
    return package
