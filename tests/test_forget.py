"""Forget requests: what each kind selects, and which requests are refused."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from mu.data import Dataset
from mu.forget import KINDS, ForgetRequest, members, select


def chosen(data: Dataset, kind: str, **fields: Any) -> np.ndarray:
    index = select(ForgetRequest(kind, **fields), data)
    assert index.dtype == np.int64
    assert (np.diff(index) > 0).all(), "sorted, and none twice"
    return index


def test_full_class_selects_all_of_one_class_and_nothing_else(data: Dataset) -> None:
    labels = data.parts["train"].labels
    index = chosen(data, "full_class", target="blue")
    assert np.array_equal(index, np.flatnonzero(labels == data.classes.index("blue")))


def test_sub_class_selects_a_sub_class_and_leaves_its_sibling(data: Dataset) -> None:
    train = data.parts["train"]
    index = chosen(data, "sub_class", target="blue-rows")
    fine = data.fine_classes.index("blue-rows")
    assert np.array_equal(index, np.flatnonzero(train.fine == fine))
    rest = np.delete(train.labels, index)
    assert (rest == data.classes.index("blue")).any()


@pytest.mark.parametrize("fraction", [0.01, 0.1, 0.33, 0.5, 0.9])
def test_random_takes_the_same_share_of_every_sub_class_to_within_one(
    data: Dataset, fraction: float
) -> None:
    fine = data.parts["train"].fine
    index = chosen(data, "random", fraction=fraction)
    assert len(index) == round(fraction * len(fine))
    counts = np.bincount(fine[index], minlength=len(data.fine_classes))
    assert np.abs(counts - fraction * np.bincount(fine)).max() < 1 + 1e-9


def test_random_without_stratification_takes_what_it_draws(data: Dataset) -> None:
    fine = data.parts["train"].fine
    index = chosen(data, "random", fraction=0.5, stratified=False)
    assert len(index) == len(fine) // 2
    assert np.ptp(np.bincount(fine[index], minlength=len(data.fine_classes))) > 1


def test_class_subset_takes_some_of_one_class(data: Dataset) -> None:
    index = chosen(data, "class_subset", target="red", count=7)
    assert len(index) == 7
    assert (data.parts["train"].labels[index] == data.classes.index("red")).all()


@pytest.mark.parametrize(
    "fields",
    [
        {"kind": "random", "fraction": 0.2},
        {"kind": "random", "fraction": 0.2, "stratified": False},
        {"kind": "class_subset", "target": "red", "count": 7},
    ],
)
def test_another_draw_selects_other_samples_and_the_same_draw_the_same(
    data: Dataset, fields: dict[str, Any]
) -> None:
    first, again, other = (chosen(data, **fields, draw=draw) for draw in (0, 0, 1))
    assert np.array_equal(first, again)
    assert len(other) == len(first)
    assert not np.array_equal(first, other)


def test_draw_does_not_matter_where_nothing_is_drawn(data: Dataset) -> None:
    first, other = (chosen(data, "full_class", target="red", draw=draw) for draw in (0, 1))
    assert np.array_equal(first, other)


def test_members_of_a_part_are_those_of_the_class_or_sub_class(data: Dataset) -> None:
    test = data.parts["test"]
    of_class = members(ForgetRequest("full_class", target="red"), data, "test")
    assert np.array_equal(of_class, test.labels == 0)
    of_fine = members(ForgetRequest("sub_class", target="red-columns"), data, "test")
    assert np.array_equal(of_fine, test.fine == 1)
    assert not members(ForgetRequest("random", fraction=0.1), data, "test").any()


def test_whole_class_requests_are_those_that_split_test_accuracy() -> None:
    requests = {
        "full_class": ForgetRequest("full_class", target="a"),
        "sub_class": ForgetRequest("sub_class", target="a"),
        "random": ForgetRequest("random", fraction=0.1),
        "class_subset": ForgetRequest("class_subset", target="a", count=1),
    }
    assert set(requests) == set(KINDS)
    whole = {kind for kind, request in requests.items() if request.whole_class}
    assert whole == {"full_class", "sub_class"}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "everything"}, "kind must be one of full_class, .*, but got 'everything'"),
        ({"kind": "full_class"}, "full_class needs `class`"),
        ({"kind": "random"}, "random needs `fraction`"),
        ({"kind": "class_subset", "target": "a"}, "class_subset needs `count`"),
        ({"kind": "random", "fraction": 0.1, "target": "a"}, "random does not take `class`"),
        ({"kind": "full_class", "target": "a", "count": 3}, "full_class does not take `count`"),
        ({"kind": "random", "fraction": 0.0}, r"`fraction` must be in \(0, 1\), but got 0.0"),
        ({"kind": "random", "fraction": 1.0}, r"`fraction` must be in \(0, 1\), but got 1.0"),
        ({"kind": "random", "fraction": -0.1}, r"`fraction` must be in \(0, 1\)"),
        ({"kind": "random", "fraction": float("nan")}, r"`fraction` must be in \(0, 1\)"),
        ({"kind": "class_subset", "target": "a", "count": 0}, "`count` must be at least 1"),
    ],
)
def test_malformed_requests_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ForgetRequest(**fields)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "random", "fraction": 0.001}, "selects nothing of 128 training samples"),
        ({"kind": "random", "fraction": 0.999}, "selects all 128 training samples"),
        ({"kind": "full_class", "target": "pink"}, "unknown class 'pink'; toy has red, green,"),
        ({"kind": "sub_class", "target": "red"}, "unknown class 'red'; toy has red-rows, red-col"),
        (
            {"kind": "class_subset", "target": "red", "count": 33},
            "`count` must be at most 32, the training samples of class 'red', but got 33",
        ),
        (
            {"kind": "class_subset", "target": "red", "count": 32},
            "leaves no training sample of class 'red'",
        ),
        ({"kind": "random", "fraction": 0.98}, "leaves no training sample of class"),
    ],
)
def test_requests_that_do_not_fit_the_data_are_refused(
    data: Dataset, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        select(ForgetRequest(**fields), data)


def test_sub_class_needs_data_with_superclasses(data: Dataset) -> None:
    train = data.parts["train"]
    plain = replace(
        data,
        parts={**data.parts, "train": replace(train, fine=train.labels)},
        fine_classes=data.classes,
    )
    with pytest.raises(
        ValueError, match=r"needs data with superclasses, .* set data\.superclasses"
    ):
        select(ForgetRequest("sub_class", target="red"), plain)


def test_only_class_cannot_be_forgotten(data: Dataset) -> None:
    train = data.parts["train"]
    single = replace(
        data,
        parts={**data.parts, "train": train.take(np.flatnonzero(train.labels == 0))},
    )
    with pytest.raises(ValueError, match="selects all 32 training samples; none would be retained"):
        select(ForgetRequest("full_class", target="red"), single)
