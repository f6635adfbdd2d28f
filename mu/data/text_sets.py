"""Texts as fixed-length token ids: 0 pads, 1 is any word the vocabulary lacks, the others are its words."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mu.data.spec import DataSpec, Raw, cached, require

PAD, UNKNOWN = "<pad>", "<unknown>"
LENGTH, VOCABULARY = 256, 20_000
ARCHIVE = "20news-bydate_py3.pkz"
REMOVED = ("headers", "footers", "quotes")


def words(text: str) -> list[str]:
    """Split a text into its words in lower case: runs of letters and digits, with an apostrophe inside."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def vocabulary_of(texts: Iterable[str], size: int) -> tuple[str, ...]:
    """Return padding, unknown, and the most frequent words, `size` entries at most; ties go by the alphabet."""
    counts = Counter(word for text in texts for word in words(text))
    ranked = sorted(counts, key=lambda word: (-counts[word], word))
    return (PAD, UNKNOWN, *ranked[: max(0, size - 2)])


def encode(texts: Sequence[str], vocabulary: Sequence[str], length: int) -> NDArray[np.int32]:
    """Return the ids of the first `length` words of each text, padded with 0: int32 [N, length]."""
    number = {word: i for i, word in enumerate(vocabulary)}
    tokens = np.zeros((len(texts), length), np.int32)
    for row, text in zip(tokens, texts):
        ids = [number.get(word, 1) for word in words(text)[:length]]
        row[: len(ids)] = ids
    return tokens


def newsgroups(spec: DataSpec, cache: Path) -> Raw:
    """Read 20 Newsgroups, split by date, without headers, footers and quotes, as scikit-learn keeps it.

    `data.root` is scikit-learn's `data_home`, which holds 20news-bydate_py3.pkz. The vocabulary is that of the
    training texts, those of `val` included.
    """
    from sklearn.datasets import fetch_20newsgroups

    root = spec.folder
    length, size = spec.length or LENGTH, spec.vocabulary or VOCABULARY
    if size < 3:
        raise ValueError(f"data.vocabulary must be at least 3, but got {size}")
    if spec.download and not (root / ARCHIVE).is_file():
        try:
            fetch_20newsgroups(data_home=root)
        except OSError as error:
            raise ValueError(
                f"data.download: {spec.name} cannot be downloaded to {root}: {error}"
            ) from error
    where = f"get it by sklearn.datasets.fetch_20newsgroups(data_home={str(root)!r})"
    require(spec, root, [ARCHIVE], where)

    def read() -> Raw:
        train, test = (
            fetch_20newsgroups(
                data_home=root,
                subset=part,
                shuffle=False,
                remove=REMOVED,
                download_if_missing=False,
            )
            for part in ("train", "test")
        )
        vocabulary = vocabulary_of(train.data, size)
        return Raw(
            (encode(train.data, vocabulary, length), np.asarray(train.target, np.int64)),
            (encode(test.data, vocabulary, length), np.asarray(test.target, np.int64)),
            tuple(train.target_names),
            vocabulary=vocabulary,
        )

    return cached(spec, cache, [root / ARCHIVE], [length, size], read)
