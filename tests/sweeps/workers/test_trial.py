"""One trial in-process: how it ends, what is billed, and what a method gets to see."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from toy import toy_problem, toy_reference

from mu import methods, metrics
from mu.data import Examples
from mu.evaluate import predict
from mu.methods import Method
from mu.metrics.closeness import class_means
from mu.problem import Problem, Weights
from mu.relative import gaps
from mu.snapshot import resumable
from mu.split import Split
from sweeps.plan import Job
from sweeps.study.search import CURVE_OBJECTIVES, OBJECTIVES, Search
from sweeps.workers import curve
from sweeps.workers.curve import CurveObjective, CurvePoint, objective_of
from sweeps.workers.result import RunningTrial, TrialResult
from sweeps.workers.scores import ReferenceScores
from sweeps.workers.trial import TrialContext, run_trial


@pytest.fixture(scope="module")
def reference(problem: Problem, original: Weights) -> ReferenceScores:
    split = problem.split()
    before = problem.evaluate(problem.load(original), split, ("val", "test")).scores
    retrained = problem.load(toy_reference("retrain"))
    after = problem.evaluate(retrained, split, ("val", "test"))
    means = {view: class_means(part.logits, part.labels) for view, part in after.held_out.items()}
    return ReferenceScores(after.scores, before, after.forget.logits, -after.forget.logits, means)


def method(unlearn: Callable[..., Iterator[None]], *needs: str) -> Method:
    return Method("own", unlearn, {}, needs or ("retain", "forget"), ("full_class",), "Own.")  # type: ignore[arg-type]


@pytest.fixture
def run(
    problem: Problem, original: Weights, reference: ReferenceScores
) -> Callable[..., tuple[list[CurvePoint], TrialResult]]:
    def run(
        method: Method, phase: str = "search", **options: Any
    ) -> tuple[list[CurvePoint], TrialResult]:
        knobs = {**method.defaults(), **options.pop("knobs", {})}
        views = ("val",) if phase == "search" else ("val", "test")
        groups = options.pop("attacks", ())
        job = Job("key", phase, "green", method.name, 0, knobs, 0, views=views, attacks=groups)
        split = options.pop("split", problem.split())
        at_yield = options.pop("at_yield", lambda running: None)
        running = options.pop("running", None)
        known = options.pop("reference", reference)
        context = TrialContext(problem, split, method, known, **options)
        trial = run_trial(context, job, original, running)
        points = []
        while True:
            try:
                running = next(trial)
                at_yield(running)
                points.append(running.result.curve[-1])
            except StopIteration as end:
                return points, end.value

    return run


def test_a_finished_trial_has_a_point_per_epoch_and_metrics_of_its_views(run: Any) -> None:
    points, result = run(methods.load("finetune"), knobs={"epochs": 3})
    assert result.status == "finished"
    assert [p["epoch"] for p in result.curve] == [0, 1, 2, 3]
    assert points == result.curve[1:]
    assert set(result.metrics) == {"val"}
    _, confirmed = run(methods.load("finetune"), "confirm", knobs={"epochs": 3})
    assert set(confirmed.metrics) == {"val", "test"}
    assert confirmed.metrics["val"] == result.metrics["val"]


def test_an_untouched_model_scores_as_the_original(run: Any, reference: ReferenceScores) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        yield

    _, result = run(method(unlearn))
    for name, value in reference.original["val"].items():
        assert result.metrics["val"][name] == value
    assert result.samples_seen == 0
    names = ("acc_test_retain", "acc_forget", "acc_test_forget", "mia_lr_entropy")
    apart = [abs(reference.original["val"][n] - reference.retrain["val"][n]) for n in names]
    compared = gaps(result.metrics["val"], reference.retrain["val"], whole_class=True)
    assert compared["avg_gap_natmu"] == pytest.approx(np.mean(apart))
    assert result.curve[-1]["avg_gap_natmu"] == pytest.approx(np.mean(apart))
    assert not any("gap" in name for name in result.metrics["val"])


def test_the_same_trial_gives_the_same_numbers(run: Any) -> None:
    results = []
    for disturb in (0, 1):
        torch.manual_seed(disturb)
        _, result = run(methods.load("natmu"), knobs={"epochs": 2})
        results.append(result)
    assert results[0].metrics == results[1].metrics


def test_non_finite_outputs_are_diverged_and_leave_no_number(run: Any) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        yield
        for weight in model.parameters():
            weight.data.fill_(math.nan)
        yield
        raise AssertionError("a diverged trial goes on")

    _, result = run(method(unlearn))
    assert (result.status, result.metrics) == ("diverged", {})
    assert result.reason == "outputs are not finite after epoch 2"


def test_a_trial_goes_on_where_it_was_saved_and_its_record_is_the_same(run: Any) -> None:
    chosen, knobs = methods.load("scrub"), {"epochs": 4}
    checkpoints: list[Any] = []
    whole = run(chosen, knobs=knobs, at_yield=lambda running: checkpoints.append(running.save()))[1]
    assert len(checkpoints) == 4
    for done, checkpoint in enumerate(checkpoints, start=1):
        running = RunningTrial(checkpoint)
        assert running.result.curve == whole.curve[: done + 1]
        spent = running.result.time_unlearn
        points, result = run(chosen, knobs=knobs, running=running)
        assert len(points) == 4 - done
        assert result.time_unlearn >= spent
        assert result.samples_seen == whole.samples_seen
        assert result.metrics == whole.metrics
        for ours, theirs in zip(result.curve, whole.curve, strict=True):
            assert {**ours, "seconds": 0} == {**theirs, "seconds": 0}


def test_what_led_to_where_a_trial_goes_on_is_not_billed_again(run: Any) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        time.sleep(0.5)
        model(split.retain.batch(torch.arange(8))[0])
        for _ in resumable(2, generator, model):
            model(split.retain.batch(torch.arange(4))[0])
            yield

    slow = method(unlearn)
    checkpoints: list[Any] = []
    whole = run(slow, at_yield=lambda running: checkpoints.append(running.save()))[1]
    began = time.monotonic()
    _, result = run(slow, running=RunningTrial(checkpoints[0]))
    assert time.monotonic() - began > 0.5, "it ran again"
    assert 0.5 < result.time_unlearn < 1.0
    assert result.samples_seen == whole.samples_seen == 16


def test_a_method_without_a_loop_has_no_checkpoint(run: Any) -> None:
    checkpoints: list[Any] = []
    run(methods.load("ssd"), at_yield=lambda running: checkpoints.append(running.save()))
    assert checkpoints == [{}]


def test_divergence_after_the_last_epoch_is_found_too(run: Any) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        yield
        for weight in model.parameters():
            weight.data.fill_(math.inf)

    _, result = run(method(unlearn))
    assert (result.status, result.metrics) == ("diverged", {})


def test_an_exception_is_a_failure_with_its_traceback(run: Any) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        yield
        raise ZeroDivisionError("no such thing")

    _, result = run(method(unlearn))
    assert (result.status, result.metrics) == ("failed", {})
    assert result.reason.endswith("ZeroDivisionError: no such thing\n")
    assert "in unlearn" in result.reason


def test_a_lack_of_device_memory_says_how_many_trials_fit(
    run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A trial that held 30 of 80 GiB when it failed."""
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (0, 80 * 2**30))
    monkeypatch.setattr("mu.device.peak_memory", lambda device: 30.0)

    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        yield
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    _, result = run(method(unlearn))
    assert result.status == "failed"
    last = result.reason.strip().splitlines()[-1]
    assert last == (
        "out of device memory: held 30.0 of the GPU's 80.0 GiB; at most 2 fit: set resources.gpus to 0.5 or more, "
        "or choose a smaller batch_size or model"
    )


def _destroy(model: Any, split: Split, generator: Any) -> Iterator[None]:
    for _ in range(6):
        for weight in model.parameters():
            weight.data.zero_()
        yield


def test_a_destroyed_model_is_stopped_after_two_evaluations(run: Any) -> None:
    points, result = run(method(_destroy))
    assert (result.status, len(points), result.metrics) == ("stopped", 1, {})
    assert len(result.curve) == 3
    assert "near chance" in result.reason


def _destroy_at_once(model: Any, split: Split, generator: Any) -> Iterator[None]:
    for weight in model.parameters():
        weight.data.zero_()
    yield


@pytest.mark.parametrize("phase", ["search", "default"])
def test_a_model_destroyed_in_one_step_is_stopped_by_its_final_point(run: Any, phase: str) -> None:
    points, result = run(method(_destroy_at_once), phase)
    assert (result.status, len(points), result.metrics) == ("stopped", 1, {})
    assert result.reason.startswith("collapsed: held-out accuracy")
    assert result.time_unlearn > 0


def test_a_single_step_is_left_alone_where_it_may_be(run: Any) -> None:
    assert run(method(_destroy_at_once), early_stop="none")[1].status == "finished"
    impairs = replace(method(_destroy_at_once), impairs_first=True)
    assert run(impairs)[1].status == "finished"
    assert run(methods.load("ssd"))[1].status == "finished", "which destroys nothing here"


def test_a_last_epoch_near_chance_after_a_good_one_is_no_collapse(run: Any) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        yield
        yield from _destroy_at_once(model, split, generator)

    assert run(method(unlearn))[1].status == "finished"


@pytest.mark.parametrize("name", CURVE_OBJECTIVES)
def test_a_curve_ends_with_the_objective_of_the_study(
    run: Any, reference: ReferenceScores, name: str
) -> None:
    own = ("acc_retain", "mia_population_auc", "zrf", "loss_ks") if name == "mean_gap" else ()
    retrained = reference.retrain["val"] | {"zrf": 0.25}
    known = replace(reference, retrain={**reference.retrain, "val": retrained})
    _, result = run(
        methods.load("finetune"),
        knobs={"epochs": 3},
        reference=known,
        objective=CurveObjective(name, own),
    )
    scores = result.metrics["val"]
    expected = {**scores, **gaps(scores, retrained, whole_class=True, own=own)}[name]
    values = [point[name] for point in result.curve[1:]]
    assert values[-1] == pytest.approx(expected)
    assert len(values) == 3
    assert all(map(math.isfinite, values))
    plain = run(methods.load("finetune"), knobs={"epochs": 3})[1]
    assert {*result.curve[-1]} - {*plain.curve[-1]} <= {name}


def test_curves_show_the_objective_for_asha_alone() -> None:
    assert objective_of(Search(objective=("activation_distance",))) is None
    search = Search(early_stop="asha", objective=("mean_gap",), mean_gap=("acc_test",))
    assert objective_of(search) == CurveObjective("mean_gap", ("acc_test",))
    assert {*OBJECTIVES} - {*CURVE_OBJECTIVES} == {"time_unlearn", "samples_seen"}


def test_early_stopping_can_be_switched_off(run: Any) -> None:
    points, result = run(method(_destroy), early_stop="none")
    assert (result.status, len(points)) == ("finished", 6)


def test_a_method_that_impairs_first_gets_time_to_repair(run: Any) -> None:
    points, result = run(replace(method(_destroy), impairs_first=True))
    assert (result.status, len(points)) == ("finished", 6)
    assert [n for n in methods.names() if methods.load(n).impairs_first] == [
        "eu_k",
        "gkt",
        "pabi",
        "unsir",
    ]


def test_evaluation_is_not_billed_and_the_method_is(run: Any, monkeypatch: Any) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        time.sleep(0.05)
        yield
        time.sleep(0.05)

    evaluate = curve.outputs

    def slowly(*arguments: Any) -> Any:
        time.sleep(0.3)
        return evaluate(*arguments)

    monkeypatch.setattr(curve, "outputs", slowly)
    _, result = run(method(unlearn))
    assert 0.1 <= result.time_unlearn < 0.6  # each of three evaluations sleeps for 0.3


def test_work_kept_from_an_earlier_trial_is_billed_again(run: Any, problem: Problem) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        def compute(draws: torch.Generator) -> torch.Tensor:
            time.sleep(0.1)
            return model(split.forget.batch(slice(0, 4))[0]).detach()

        split.cached("costly", compute)
        yield

    split = problem.split()
    first, second = (run(method(unlearn), split=split)[1] for _ in range(2))
    assert first.samples_seen == second.samples_seen == 4
    assert second.time_unlearn >= 0.1


def test_what_a_method_warns_of_stands_in_the_result_of_its_trial_alone(
    run: Any, problem: Problem
) -> None:
    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        for _ in range(2):
            split.warn("nothing to do")
        yield

    def quiet(model: Any, split: Split, generator: Any) -> Iterator[None]:
        yield

    split = problem.split()
    first, second = (run(method(each), split=split)[1] for each in (unlearn, quiet))
    assert (first.status, first.warnings) == ("finished", ["nothing to do"])
    assert second.warnings == []


def test_a_method_sees_only_what_it_declares(run: Any) -> None:
    seen = []

    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        seen.append(set(split.parts))
        yield
        split.retain  # noqa: B018

    _, result = run(method(unlearn, "forget"))
    assert seen == [{"forget"}]
    assert result.status == "failed"
    assert "NEEDS does not list 'retain'" in result.reason


def test_requests_without_a_class_gap_over_three_metrics(original: Weights) -> None:
    problem = toy_problem("random")
    split = problem.split()
    evaluation = problem.evaluate(problem.load(original), split, ("val",))
    scores, forget = evaluation.scores, evaluation.forget
    shifted = {n: v + 0.3 if n == "acc_test" else v for n, v in scores["val"].items()}
    reference = ReferenceScores({"val": shifted}, scores, forget.logits, forget.logits)
    job = Job("key", "search", "random", "own", 0, {}, 0, views=("val",))

    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        yield

    context = TrialContext(problem, split, method(unlearn), reference)
    trial = run_trial(context, job, original)
    next(trial)
    with pytest.raises(StopIteration) as end:
        next(trial)
    result = end.value.value
    compared = gaps(result.metrics["val"], shifted, whole_class=False)
    assert compared["avg_gap_natmu"] == pytest.approx(0.1)
    assert result.curve[-1]["avg_gap_natmu"] == pytest.approx(0.1)
    assert result.metrics["val"]["activation_distance"] == 0


def ends_quietly(model: Any, split: Split, generator: Any) -> Iterator[None]:
    model[-1][-1].weight.data *= 0.9
    yield


def ends_with_other_weights(model: Any, split: Split, generator: Any) -> Iterator[None]:
    yield
    model[-1][-1].weight.data *= -1


def ends_without_its_hook(model: Any, split: Split, generator: Any) -> Iterator[None]:
    hook = model.register_forward_hook(lambda module, inputs, logits: -logits)
    yield
    hook.remove()


@pytest.mark.parametrize(
    ("unlearn", "kept"),
    [
        (ends_quietly, ["retain", "forget", "val"]),
        (ends_with_other_weights, []),
        (ends_without_its_hook, ["forget"]),
    ],
)
@pytest.mark.parametrize("few", [True, False])
def test_scores_are_of_the_model_at_the_end_and_what_its_curve_has_shown_is_not_worked_out_again(
    monkeypatch: pytest.MonkeyPatch,
    run: Any,
    problem: Problem,
    unlearn: Any,
    kept: list[str],
    few: bool,
) -> None:
    known: list[dict[str, Any]] = []
    evaluate = Problem.evaluate

    def note(self: Problem, *given: Any) -> Any:
        known.append(given[-1])
        models.append(given[0])
        return evaluate(self, *given)

    models: list[torch.nn.Module] = []
    monkeypatch.setattr(curve, "CURVE_RETAIN", 10**6 if few else 7)
    monkeypatch.setattr(Problem, "evaluate", note)
    result = run(method(unlearn), "confirm", early_stop="none")[1]
    anew = evaluate(problem, models[0], problem.split(), ("val", "test")).scores
    assert list(known[0]) == [name for name in kept if few or name != "retain"]
    for view, scores in anew.items():
        assert {name: result.metrics[view][name] for name in scores} == scores


SHOWN = {
    "natmu": {"kl_naturalness", "partial_forget_acc", "partial_forget_acc_retrain"},
    "natmu_nri": {"kl_naturalness", "partial_forget_acc", "partial_forget_acc_retrain"},
    "natmu_rl": {"kl_naturalness", "partial_forget_acc", "partial_forget_acc_retrain"},
    "amnesiac": {"kl_naturalness"},
    "badteacher": {"kl_naturalness"},
    "boundary_shrink": {"kl_naturalness"},
    "salun": {"kl_naturalness"},
    "tmu": {"acc_gl"},
    "ugradsl": {"label_ldp_eps"},
    "finetune": set(),
}
DIAGNOSTICS = set().union(*SHOWN.values())


@pytest.mark.parametrize("name", SHOWN)
def test_a_finalist_has_the_diagnostics_of_what_its_method_shows(run: Any, name: str) -> None:
    gold, chosen = toy_reference("retrain"), methods.load(name)
    knobs = {"epochs": 1, **({"reinit_head": False} if "reinit_head" in chosen.knobs else {})}
    _, quick = run(chosen, "confirm", knobs=knobs, retrained=lambda: gold)
    assert not DIAGNOSTICS & set(quick.metrics["test"])
    _, result = run(chosen, "confirm", knobs=knobs, retrained=lambda: gold, attacks=("svc",))
    reasons = {key.split("/")[1] for key in result.unavailable}
    assert DIAGNOSTICS & ({*result.metrics["test"], *reasons}) == SHOWN[name]
    for key in SHOWN[name] & set(result.metrics["test"]):
        assert result.metrics["val"][key] == result.metrics["test"][key] >= 0
    assert result.metrics["test"]["acc_forget"] == quick.metrics["test"]["acc_forget"]


def test_naturalness_is_that_of_the_labels_a_method_trains_on(run: Any, problem: Problem) -> None:
    gold = problem.load(toy_reference("retrain"))
    split = problem.split()
    shown = {}

    def unlearn(model: Any, split: Split, generator: Any) -> Iterator[None]:
        split.diagnostics.instances = Examples(split.forget.inputs, shown["labels"])
        split.diagnostics.partial = lambda: Examples(split.forget.inputs, shown["labels"])
        yield

    logits = predict(gold, split.forget)
    values = []
    for labels in (logits.argmax(1), logits.argmin(1)):
        shown["labels"] = torch.from_numpy(labels)
        _, result = run(
            method(unlearn), "confirm", retrained=lambda: toy_reference("retrain"), attacks=("svc",)
        )
        values.append(result.metrics["test"])
        rows = np.arange(len(labels))
        expected = -metrics.log_softmax(logits)[rows, labels].mean()
        assert values[-1]["kl_naturalness"] == pytest.approx(expected)
    assert [v["partial_forget_acc_retrain"] for v in values] == [1, 0]
    assert values[0]["kl_naturalness"] < values[1]["kl_naturalness"]


def test_a_reported_trial_keeps_its_confusions(run: Any, problem: Problem) -> None:
    _, searched = run(methods.load("finetune"), knobs={"epochs": 1})
    assert searched.confusions == {}
    _, result = run(methods.load("finetune"), "confirm", knobs={"epochs": 1})
    assert set(result.confusions) == {"retain", "forget", "val", "test"}
    cells = np.array(result.confusions["forget"])
    assert cells[:, 2].sum() == len(problem.forget_index)
    assert set(cells[:, 0]) == {1}  # the forgotten class
    right = cells[cells[:, 0] == cells[:, 1], 2].sum()
    assert result.metrics["test"]["acc_forget"] == right / cells[:, 2].sum()
