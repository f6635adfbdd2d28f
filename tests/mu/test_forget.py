"""Forget requests: what each kind selects, and which requests are refused."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mu.data import Dataset
from mu.forget import KINDS, ForgetRequest, members, select, stand_in


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
        "identities": ForgetRequest("identities", fraction=0.1),
        "hardest": ForgetRequest("hardest", fraction=0.1),
        "worst_case": ForgetRequest("worst_case", count=50),
        "indices": ForgetRequest("indices", file="a.npy"),
    }
    assert set(requests) == set(KINDS)
    whole = {kind for kind, request in requests.items() if request.whole_class}
    assert whole == {"full_class", "sub_class"}
    assert {kind for kind, request in requests.items() if request.splits_held_out} == whole
    for kind in whole:
        request = requests[kind]
        assert not replace(request, held_out="whole").splits_held_out
        assert replace(request, held_out="without_forgotten").splits_held_out


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "everything"}, "kind must be one of full_class, .*, but got 'everything'"),
        ({"kind": "full_class"}, "full_class needs `class`"),
        ({"kind": "random"}, "random needs `fraction`"),
        (
            {"kind": "full_class", "target": "a", "held_out": "half"},
            "`held_out` must be whole or without_forgotten, but got 'half'",
        ),
        (
            {"kind": "random", "fraction": 0.1, "held_out": "whole"},
            "random does not take `held_out`",
        ),
        ({"kind": "class_subset", "target": "a"}, "class_subset needs `count`"),
        ({"kind": "random", "fraction": 0.1, "target": "a"}, "random does not take `class`"),
        ({"kind": "full_class", "target": "a", "count": 3}, "full_class does not take `count`"),
        ({"kind": "random", "fraction": 0.0}, r"`fraction` must be in \(0, 1\), but got 0.0"),
        ({"kind": "random", "fraction": 1.0}, r"`fraction` must be in \(0, 1\), but got 1.0"),
        ({"kind": "random", "fraction": -0.1}, r"`fraction` must be in \(0, 1\)"),
        ({"kind": "random", "fraction": float("nan")}, r"`fraction` must be in \(0, 1\)"),
        ({"kind": "class_subset", "target": "a", "count": 0}, "`count` must be at least 1"),
        ({"kind": "hardest"}, "hardest needs `fraction` or `count`"),
        (
            {"kind": "worst_case", "fraction": 0.1, "count": 3},
            "worst_case takes `fraction` or `count`, not both",
        ),
        ({"kind": "worst_case", "count": 3, "epochs": 2}, "worst_case does not take `epochs`"),
        ({"kind": "hardest", "count": 3, "epochs": 0}, "`epochs` must be at least 1, but got 0"),
        ({"kind": "identities"}, "identities needs `fraction` or `identities`"),
        (
            {"kind": "identities", "identities": ("3",), "among": ("a",)},
            "`among` limits the draw of a `fraction`",
        ),
        ({"kind": "identities", "identities": ("Ann",)}, "must be whole numbers, but got 'Ann'"),
        ({"kind": "indices"}, "indices needs `file`"),
        ({"kind": "random", "fraction": 0.1, "file": "a.npy"}, "random does not take `file`"),
        ({"kind": "random", "fraction": math.inf}, r"`fraction` must be in \(0, 1\), but got inf"),
        ({"kind": "hardest", "count": math.inf}, "`count` must be finite, but got inf"),
        ({"kind": "hardest", "count": math.nan}, "`count` must be finite, but got nan"),
        ({"kind": "hardest", "count": 3, "epochs": math.inf}, "`epochs` must be finite"),
        ({"kind": "random", "fraction": 0.1, "draw": math.nan}, "`draw` must be finite"),
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


@pytest.fixture(scope="module")
def people(data: Dataset) -> Dataset:
    """Return the toy data with 16 people: an even number is mostly red, an odd one mostly green or else."""
    train = data.parts["train"]
    groups = np.zeros(len(train), np.int64)
    red = train.labels == 0
    groups[red] = np.arange(red.sum()) % 8 * 2
    groups[~red] = np.arange((~red).sum()) % 8 * 2 + 1
    return replace(data, parts={**data.parts, "train": replace(train, groups=groups + 100)})


def test_a_share_of_identities_goes_with_all_their_samples(people: Dataset) -> None:
    groups = people.parts["train"].groups
    assert groups is not None
    index = chosen(people, "identities", fraction=0.25)
    gone = set(groups[index])
    assert len(gone) == 4
    assert np.array_equal(index, np.flatnonzero(np.isin(groups, list(gone))))
    assert len(set(groups[chosen(people, "identities", fraction=0.01)])) == 1, "at least one"


def test_identities_are_drawn_among_people_who_mostly_belong_to_some_classes(
    people: Dataset,
) -> None:
    groups = people.parts["train"].groups
    assert groups is not None
    for draw in range(3):
        index = chosen(people, "identities", fraction=0.2, among=("red",), draw=draw)
        assert set(groups[index] % 2) == {0}


def test_listed_identities_go(people: Dataset) -> None:
    groups = people.parts["train"].groups
    index = chosen(people, "identities", identities=("103", "100"))
    assert np.array_equal(index, np.flatnonzero(np.isin(groups, [100, 103])))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"identities": ("7",)}, "identity 7 has no training sample; toy has 16 from 100 to 115"),
        ({"fraction": 0.9, "among": ("red",)}, "leaves 8 identities, but 14 are to be forgotten"),
        ({"fraction": 0.1, "among": ("pink",)}, "unknown class 'pink'"),
    ],
)
def test_identities_that_do_not_fit_the_data_are_refused(
    people: Dataset, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        select(ForgetRequest("identities", **fields), people)


def test_identities_need_data_that_knows_them(data: Dataset) -> None:
    with pytest.raises(ValueError, match="such as celeba, not toy"):
        select(ForgetRequest("identities", fraction=0.1), data)


def test_ranked_requests_take_the_largest_scores_of_what_they_choose_from(data: Dataset) -> None:
    labels = data.parts["train"].labels
    scores = np.random.default_rng(0).random(len(labels))
    everywhere = select(ForgetRequest("hardest", fraction=0.1), data, scores)
    assert len(everywhere) == round(0.1 * len(labels))
    assert scores[everywhere].min() > np.delete(scores, everywhere).max()
    red = select(ForgetRequest("worst_case", target="red", count=5), data, scores)
    of_red = np.flatnonzero(labels == 0)
    assert set(red) <= set(of_red)
    assert scores[red].min() > scores[np.setdiff1d(of_red, red)].max()
    tied = select(ForgetRequest("worst_case", count=5), data, np.zeros(len(labels)))
    assert tied.tolist() == [0, 1, 2, 3, 4], "ties go by position"


@pytest.mark.parametrize(
    "fields", [{"fraction": 0.1}, {"count": 9}, {"target": "red", "fraction": 0.25}]
)
def test_stand_ins_of_ranked_requests_have_their_size(
    data: Dataset, fields: dict[str, Any]
) -> None:
    request = ForgetRequest("hardest", **fields)
    scores = np.random.default_rng(0).random(len(data.parts["train"]))
    assert len(stand_in(request, data)) == len(select(request, data, scores))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"count": 129}, "`count` must be at most 128, the training samples, but got 129"),
        ({"target": "red", "count": 33}, "at most 32, the training samples of class 'red'"),
        ({"fraction": 0.001}, "selects 0 of 128"),
        ({"count": 128}, "selects 128 of 128"),
    ],
)
def test_ranked_requests_of_a_wrong_size_are_refused_before_anything_is_ranked(
    data: Dataset, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        stand_in(ForgetRequest("worst_case", **fields), data)


@pytest.fixture
def cut(data: Dataset) -> Dataset:
    """Return the toy data as if every third of 192 training samples had been held out."""
    positions = np.flatnonzero(np.arange(192) % 3)
    assert len(positions) == len(data.parts["train"])
    return replace(data, positions=positions, all_samples=192)


def saved(folder: Path, content: Any, fingerprint: str | None = None) -> ForgetRequest:
    np.save(folder / "some.npy", content)
    if fingerprint is not None:
        (folder / "some.json").write_text(json.dumps({"fingerprint": fingerprint}))
    return ForgetRequest("indices", file=str(folder / "some.npy"))


def test_positions_of_a_file_count_all_training_samples(cut: Dataset, tmp_path: Path) -> None:
    request = saved(tmp_path, np.array([190, 1, 5], np.int32), cut.fingerprint)
    index = select(request, cut)
    assert index.tolist() == [0, 3, 126]
    assert cut.all_positions(index).tolist() == [1, 5, 190]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array([1.0, 2.0]), r"must hold one list of whole numbers, but holds float64 \[2\]"),
        (np.array([[1], [2]]), r"but holds int64 \[2, 1\]"),
        (np.array([True, False]), "but holds bool"),
        (np.array([1, 192]), "position 192 is not among the 192 training samples"),
        (np.array([-1, 2]), "position -1 is not among"),
        (np.array([4, 2, 4]), "position 4 is there twice"),
        (
            np.array([1, 3, 6]),
            r"2 of the 3 samples of .*, such as 3, are not trained on: .*reserve",
        ),
        (np.array([], np.int64), "selects nothing"),
    ],
)
def test_files_that_hold_no_positions_are_refused(
    cut: Dataset, tmp_path: Path, content: Any, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        select(saved(tmp_path, content), cut)


def test_a_file_that_is_none_or_of_other_data_is_refused(cut: Dataset, tmp_path: Path) -> None:
    missing = ForgetRequest("indices", file=str(tmp_path / "none.npy"))
    with pytest.raises(ValueError, match=r"file: .*none\.npy cannot be read"):
        select(missing, cut)
    (tmp_path / "none.npy").write_bytes(b"0, 1, 2")
    with pytest.raises(ValueError, match=r"none\.npy cannot be read as a \.npy file"):
        select(missing, cut)
    other = saved(tmp_path, np.array([1, 2]), "0" * 32)
    with pytest.raises(ValueError, match=r"fingerprint 0{32}, but this study's has"):
        select(other, cut)
