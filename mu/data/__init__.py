"""Data sets as arrays and tensors, read from files and folders, and cut into parts.

``dataset`` holds the types and ``load``. ``loaders`` names every data set that can be loaded; ``torchvision_sets``,
``image_folders`` and ``text_sets`` read them as ``spec`` describes, ``decode`` turns image files into arrays. ``sampling``
makes stratified choices, ``passes`` endless ones, ``index_files`` reads lists of samples, ``augment`` changes batches.
"""

from mu.data.dataset import PARTS, Dataset, Examples, Part, as_float, batches, concat, load
from mu.data.loaders import LOADERS
from mu.data.sampling import stratified_choice
from mu.data.spec import DataSpec

__all__ = [
    "LOADERS",
    "PARTS",
    "DataSpec",
    "Dataset",
    "Examples",
    "Part",
    "as_float",
    "batches",
    "concat",
    "load",
    "stratified_choice",
]
