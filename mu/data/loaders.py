"""Every data set by name. A new one is a function from ``DataSpec`` to ``Raw``, and a line here."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mu.data.image_folders import image_folder, imagenet, pins_faces, tiny_imagenet, vggface2
from mu.data.sampling import stratified_cut
from mu.data.spec import DataSpec, Loader, Raw
from mu.data.text_sets import newsgroups
from mu.data.torchvision_sets import celeba, cifar, mnist, svhn


def digits(spec: DataSpec, cache: Path) -> Raw:
    """Load the handwritten digits shipped with scikit-learn: 1,797 grey images of 8 x 8, one fifth for test.

    Its file is read directly: `sklearn.datasets` takes a second to import, which every start would wait for.
    """
    package = find_spec("sklearn")
    assert package is not None and package.submodule_search_locations is not None
    path = Path(package.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    table = np.loadtxt(path, delimiter=",")  # 64 pixels in [0, 16], and the label
    images = np.round(table[:, :64].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = table[:, 64].astype(np.int64)
    test, train = stratified_cut(labels, np.arange(len(labels)), len(labels) // 5, "digits test")
    classes = tuple(str(digit) for digit in range(10))
    return Raw((images[train], labels[train]), (images[test], labels[test]), classes)


FILES = ("root", "size", "download")
FOLDER = ("root", "size", "classes", "largest")
LOADERS: dict[str, Loader] = {
    "digits": Loader(digits, samples=1_438),
    "cifar10": Loader(cifar, FILES, 50_000),
    "cifar100": Loader(cifar, FILES, 50_000),
    "cifar20": Loader(cifar, FILES, 50_000),
    "svhn": Loader(svhn, FILES, 73_257),
    "mnist": Loader(mnist, FILES, 60_000),
    "fashion_mnist": Loader(mnist, FILES, 60_000),
    "tiny_imagenet": Loader(tiny_imagenet, (*FOLDER, "download"), 100_000),
    "celeba": Loader(celeba, (*FILES, "label"), 162_770),
    "image_folder": Loader(image_folder, (*FOLDER, "test")),
    "imagenet": Loader(imagenet, FOLDER, 1_281_167),
    "pins_faces": Loader(pins_faces, (*FOLDER, "test")),
    "vggface2": Loader(vggface2, (*FOLDER, "test")),
    "20newsgroups": Loader(newsgroups, ("root", "download", "length", "vocabulary"), 11_314),
}
