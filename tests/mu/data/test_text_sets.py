"""Texts: nothing in the package takes inputs for images, and what needs images says so."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import tiny_data
import torch
from method_settings import FORGETTING, short_knobs

from mu import methods
from mu.data import Dataset, DataSpec, load
from mu.evaluate import predict
from mu.forget import ForgetRequest
from mu.models import build
from mu.models.architectures import EmbeddingBag
from mu.problem import Problem, Weights, weights_of
from mu.relative import gaps
from mu.rng import generator
from mu.training import Recipe
from sweeps import preflight
from sweeps.errors import StudyError
from sweeps.plan import Job
from sweeps.study import study
from sweeps.workers.scores import ReferenceScores
from sweeps.workers.trial import TrialContext, run_trial

pytestmark = pytest.mark.filterwarnings("ignore:SSD selected no weight")
NEED_IMAGES = {
    "boundary_shrink", "emmn", "gkt", "jit", "mu_mis", "natmu", "natmu_nri", "tmu", "unsir",
}  # fmt: skip
RECIPE = Recipe(epochs=12, optimizer="adam", lr=0.01, weight_decay=0.0, batch_size=32)
GROUP = tiny_data.GROUPS[3]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("news")
    tiny_data.make("20newsgroups", folder)
    return folder


@pytest.fixture(scope="module")
def texts(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    spec = DataSpec("20newsgroups", str(root), length=32, vocabulary=120, val=0.2, twin=0.1)
    return load(spec, tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def problem(texts: Dataset) -> Problem:
    request = ForgetRequest("full_class", target=GROUP)
    return Problem(texts, "embedding_bag", RECIPE, request, 0)


def trained(problem: Problem, role: Any) -> Weights:
    model = problem.build()
    for _ in problem.train(role, model):
        pass
    return weights_of(model)


@pytest.fixture(scope="module")
def original(problem: Problem) -> Weights:
    return trained(problem, "original")


@pytest.fixture(scope="module")
def reference(problem: Problem, original: Weights) -> ReferenceScores:
    split = problem.split()
    views = ("val", "test")
    before = problem.evaluate(problem.load(original), split, views).scores
    after = problem.evaluate(problem.load(trained(problem, "retrain")), split, views)
    return ReferenceScores(after.scores, before, after.forget.logits, -after.forget.logits)


def test_padding_changes_nothing_and_order_does_not_matter() -> None:
    torch.manual_seed(0)
    network = EmbeddingBag((4, 9), 3)
    short = network(torch.tensor([[5, 7]], dtype=torch.int32))
    padded = network(torch.tensor([[7, 5, 0, 0]], dtype=torch.int32))
    assert torch.allclose(short, padded)
    mean = network.embedding.weight[[5, 7]].mean(0)
    by_hand = network.classifier(network.hidden(mean).relu())
    assert torch.allclose(short[0], by_hand, atol=1e-6)
    assert torch.isfinite(network(torch.zeros(1, 4, dtype=torch.int32))).all(), "an empty text"


def test_a_network_learns_texts_and_retraining_forgets_a_group(reference: ReferenceScores) -> None:
    assert reference.original["test"]["acc_test"] > 0.8
    assert reference.original["test"]["acc_forget"] > 0.8
    assert reference.retrain["test"]["acc_forget"] == 0
    assert reference.retrain["test"]["acc_test_retain"] > 0.8


@pytest.mark.parametrize("name", methods.names())
def test_a_method_works_on_texts_or_says_that_it_needs_images(
    name: str, problem: Problem, original: Weights, reference: ReferenceScores
) -> None:
    method = methods.load(name)
    split = problem.split().only(method.data)
    check = method.check_problem or (lambda *_: None)
    if name in NEED_IMAGES:
        with pytest.raises(ValueError, match="needs images, because it"):
            check(problem.build(), split)
        return
    check(problem.build(), split)
    # A head that is drawn anew does not learn in two epochs.
    head = {"reinit_head": False} if "reinit_head" in method.knobs else {}
    knobs = short_knobs(method, **head)
    job = Job("key", "confirm", "group", name, 0, knobs)
    context = TrialContext(problem, problem.split(), method, reference)
    trial = run_trial(context, job, original)
    while True:
        try:
            next(trial)
        except StopIteration as end:
            outcome = end.value
            break
    assert outcome.status == "finished", outcome.reason
    values, retrained = outcome.metrics["test"], reference.retrain["test"]
    whole_class = problem.request.whole_class
    assert np.isfinite(gaps(values, retrained, whole_class)["avg_gap_natmu"])


@pytest.mark.parametrize("name", ["finetune", "ga", "ssd", "salun", "scrub", "amnesiac", "ugradsl"])
def test_methods_forget_texts(name: str, problem: Problem, original: Weights) -> None:
    knobs: dict[str, dict[str, Any]] = {
        "finetune": {"lr": 0.03, "epochs": 10, "weight_decay": 0.0, "momentum": 0.9},
        "ssd": {"alpha": 1.0},
        "salun": {"lr": 0.1, "epochs": 10},
        "ugradsl": {"lr": 1.0, "epochs": 4},
        "ga": {"lr": 0.3, "epochs": 4},
        "scrub": {"lr": 0.05, "epochs": 4},
    }
    method = methods.load(name)
    model = problem.load(original)
    split = problem.split().only(method.data)
    wanted = method.check({**FORGETTING.get(name, {}), **knobs.get(name, {})})
    forget = problem.split().forget
    before = confidence(model, forget)
    for _ in method.unlearn(model, split, generator("text", name), **wanted):
        pass
    assert confidence(model, forget) < before, "the forgotten group is believed less"


def confidence(model: torch.nn.Module, examples: Any) -> float:
    """Return the mean probability of the samples' own class."""
    shares = torch.from_numpy(predict(model, examples)).softmax(1)
    return float(shares[torch.arange(len(shares)), examples.labels].mean())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model": "small_cnn"}, "model: small_cnn takes images, but the data holds tokens; for"),
        (
            {"training__augment": "crop"},
            "training: augment: crop changes images, but 20newsgroups holds tokens",
        ),
        (
            {"methods": ["finetune", "natmu"]},
            "methods: natmu: some: needs images, because it blends images",
        ),
        ({"methods": ["jit"]}, "methods: jit: some: needs images, because it adds noise"),
        (
            {"model": {"name": "embedding_bag", "normalize": {"mean": [0.5], "std": [0.5]}}},
            "normalize is for images, but embedding_bag takes tokens",
        ),
    ],
)
def test_what_needs_images_is_refused_before_anything_starts(
    changes: dict[str, Any], message: str, root: Path, tmp_path: Path
) -> None:
    data = {"name": "20newsgroups", "root": str(root), "length": 32}
    forget = {"some": {"kind": "random", "fraction": 0.1}}
    usual: dict[str, Any] = {
        "data": data,
        "model": "embedding_bag",
        "forget": forget,
        "experiments": {},
        "methods": ["finetune"],
    }
    with pytest.raises(StudyError) as caught:
        preflight.load_data(
            study.parse(studies.tiny(**{**usual, **changes}), "news.yaml"), "news.yaml", tmp_path
        )
    assert message in str(caught.value)


def test_texts_are_refused_by_name_where_images_are_at_hand() -> None:
    with pytest.raises(ValueError, match="embedding_bag takes tokens, but the data holds images"):
        build("embedding_bag", (3, 8, 8), 2, (0.0,) * 3, (1.0,) * 3, 0)
