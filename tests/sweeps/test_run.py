"""Whole studies through real Ray, Optuna and MLflow: run, continue, kill, join a cluster, install."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import studies
import torch
from job_source import OneTraining
from mlflow.tracking import MlflowClient
from rich.console import Console
from servers import listening, with_descendants
from studies import counts, numbers, records

import sweeps
from mu import record
from reports import load
from sweeps.flow.ledger import in_one_line
from sweeps.state import code
from sweeps.state.store import Store
from sweeps.tracking.mlflow import local_uri
from sweeps.tracking.mlflow_runs import KEY, LEVEL

pytestmark = pytest.mark.slow


def test_every_planned_trial_is_there_once_and_finished(finished: Path) -> None:
    found = records(finished / "results/tiny")
    assert counts(found) == studies.TINY_COUNTS
    assert {r.status for r in found.values()} == {"finished"}
    lines = (finished / "results/tiny/trials.jsonl").read_text().splitlines()
    assert len(lines) == len(found) + 1
    study = load.read(finished / "results/tiny")
    assert {phase: study.planned(phase) for phase in studies.TINY_COUNTS} == studies.TINY_COUNTS


def test_search_never_looks_at_test_and_seeds_are_apart(finished: Path) -> None:
    for r in records(finished / "results/tiny").values():
        if r.phase == "search":
            assert (set(r.metrics), r.seed) == ({"val"}, 0)
        elif r.phase != "reference":
            assert set(r.metrics) == {"val", "test"}
            assert r.seed in (1, 2)


def test_later_phases_use_the_best_knobs_of_the_search(finished: Path) -> None:
    found = records(finished / "results/tiny").values()
    for forget in ("some", "three"):
        for method in ("finetune", "jit"):
            cell = [r for r in found if (r.forget, r.method) == (forget, method)]
            tried = [r for r in cell if r.phase == "search"]
            best = min(tried, key=lambda r: (round(r.metrics["val"]["avg_gap_natmu"], 9), r.number))
            for r in cell:
                if r.phase == "confirm":
                    assert r.knobs == best.knobs
                if r.phase == "default":
                    assert r.knobs == next(t.knobs for t in tried if t.number == 0)
                if r.phase == "sufficient":
                    assert r.knobs == {**best.knobs, "epochs": 3}
            for r in found:
                if (r.phase, r.source, r.method) == ("transfer", forget, method):
                    assert (r.knobs, r.forget) == (best.knobs, "three")


def test_optuna_and_mlflow_hold_what_the_records_say(finished: Path) -> None:
    folder = finished / "results/tiny"
    found = records(folder)
    client = MlflowClient(local_uri(folder))
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    by_key = {run.data.tags[KEY]: run for run in runs if KEY in run.data.tags}
    assert set(by_key) == set(found)
    cells = {run.info.run_id: run for run in runs if run.data.tags[LEVEL] == "cell"}
    assert len(cells) == 4 + 2 * 2  # references have two methods
    (study,) = [run for run in runs if run.data.tags[LEVEL] == "study"]
    assert {run.data.tags["mlflow.parentRunId"] for run in cells.values()} == {study.info.run_id}
    assert len(runs) == 1 + len(cells) + len(by_key)
    for key, run in by_key.items():
        cell = cells[run.data.tags["mlflow.parentRunId"]].data.tags
        assert (cell["forget"], cell["method"]) == (found[key].forget, found[key].method)
        for view, scores in found[key].metrics.items():
            for name, value in scores.items():
                assert run.data.metrics[f"{view}/{name}"] == pytest.approx(value)
    for r in found.values():
        if r.phase == "search":
            told = studies.searched(str(folder / "optuna.journal"), r.forget, r.method)
            assert told.trials[r.number or 0].value == r.metrics["val"]["avg_gap_natmu"]


def test_the_end_prints_the_table_and_says_where_things_are(finished: Path) -> None:
    shown = (finished / "output.txt").read_text()
    for text in ("AvgGap", "Report: ", "report/index.html", "MLflow: musweep ui results/tiny"):
        assert text in shown
    assert "pid=" not in shown  # no log lines of workers
    summary = json.loads((finished / "results/tiny/summary.json").read_text())
    assert summary["counts"]["search"] == {"finished": 12}
    assert 0 < summary["efficiency"] <= 1
    for name in ("main", "sufficient", "transfer", "cost"):
        for suffix in ("csv", "md", "tex"):
            assert (finished / f"results/tiny/report/tables/{name}.{suffix}").stat().st_size > 0
    assert (finished / "results/tiny/report/index.html").stat().st_size > 0
    assert not list((finished / "results").rglob("*.tmp"))


def test_run_log_has_the_end_of_each_trial_and_what_the_console_said(finished: Path) -> None:
    log = (finished / "results/tiny/run.log").read_text()
    first = log.splitlines()[0]
    assert f"musweep run study.yaml: musweep {code.running()}" in first and "torch" in first
    for each in studies.records(finished / "results/tiny").values():
        assert log.count(in_one_line(each)) == 1
    assert "tiny: references 0/" in log or "tiny: references 1/" in log
    assert "sweeps.launch: Report: " in log


def test_running_it_again_does_nothing_and_says_so(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(*_: Any) -> None:
        raise AssertionError("Ray or MLflow would be started")

    monkeypatch.setattr("sweeps.launch._sweep", start)
    before = (finished / "results/tiny/trials.jsonl").read_bytes()
    again = studies.here(finished, "run", "study.yaml")
    assert again.returncode == 0
    assert "nothing to do, all 48 trials are there" in again.stdout
    assert (finished / "results/tiny/trials.jsonl").read_bytes() == before


def test_another_study_of_the_same_name_is_refused(finished: Path) -> None:
    other = studies.here(finished, "run", "study.yaml", "-o", "training.epochs=4")
    assert other.returncode == 2
    assert "training.epochs: was 3, is 4" in other.stderr


def test_status_and_report_work_from_the_records_alone(finished: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copied"
    folder.mkdir()
    (folder / "trials.jsonl").write_bytes((finished / "results/tiny/trials.jsonl").read_bytes())
    shown = studies.here(tmp_path, "status", "copied")
    assert shown.returncode == 0
    assert "tiny: 48 trials recorded" in shown.stdout
    assert studies.here(tmp_path, "report", "copied").returncode == 0
    assert (folder / "report/index.html").is_file()
    assert studies.here(tmp_path, "status", "nowhere").returncode == 2


@pytest.mark.usefixtures("ray_here")
def test_a_second_study_runs_in_a_thread_and_shares_the_references(finished: Path) -> None:
    """A study over the same problems trains no reference, and audits the models it has."""
    other = studies.tiny(
        study="other",
        methods=[studies.JIT],
        experiments={"defaults": False},
        keep={"models": "all"},
        search__trials=1,
    )
    other["audit"] = {"models": 2}
    places = {"results": finished / "results", "storage": finished / "storage"}
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    there = set((finished / "storage").rglob("*.npz"))
    results: list[Any] = []
    shown = io.StringIO()

    def work() -> None:
        try:
            results.append(
                sweeps.run(sweeps.load_study(other), console=Console(file=shown), **places)
            )
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(studies.LIMIT_SECONDS)
    (result,) = results
    assert isinstance(result, sweeps.Result), result
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert result.failed == 0 and "Report:" in shown.getvalue()
    assert result.report() == finished / "results" / "other" / "report" / "index.html"
    model = result.unlearned("some", "jit")
    assert model(torch.zeros(2, 1, 8, 8)).shape == (2, 10)
    store = Store(str(finished / "storage"))
    added = [store.get(path.stem) for path in {*(finished / "storage").rglob("*.npz")} - there]
    assert added and not any("seconds" in (arrays or {}) for arrays in added), "a new model"
    audits = [r for r in records(finished / "results/other").values() if r.phase == "audit"]
    assert len(audits) == 2 * 2
    assert all(0 <= r.metrics["test"]["rmia_auc"] <= 1 for r in audits)
    options = sweeps.Options(results=places["results"], storage=str(places["storage"]))
    again = sweeps.run(sweeps.load_study(other), options, console=Console(file=shown))
    assert "nothing to do" in shown.getvalue() and again.folder == result.folder


@pytest.mark.soak
@pytest.mark.fault
@pytest.mark.usefixtures("ray_here")
def test_samples_are_ranked_by_workers_before_anything_else_and_written_down(
    tmp_path: Path,
) -> None:
    requests = {
        "hard": {"kind": "hardest", "fraction": 0.05, "epochs": 3},
        "worst": {"kind": "worst_case", "class": 3, "count": 10},
    }
    wanted = studies.tiny(
        forget=requests,
        experiments={"defaults": False},
        methods=[{"name": "finetune", "fix": {"epochs": 1}}],
        seeds__report=[1],
        seeds__retrain=1,
    )
    studies.write(tmp_path, {**wanted, "search": {**wanted["search"], "trials": 1}})
    done = studies.here(tmp_path, "run", "study.yaml", "-o", "training.epochs=5")
    assert done.returncode == 0, done.stderr
    assert "ranking samples for hard, worst" in done.stdout
    line, found = record.read(tmp_path / "results" / "tiny" / "trials.jsonl")
    assert {r.forget for r in found} == set(requests)
    assert all(r.finished for r in found)
    for name in requests:
        positions = np.load(tmp_path / "results" / "tiny" / "splits" / f"{name}.npy")
        assert len(positions) == line["requests"][name]["forget"]
    again = studies.here(tmp_path, "run", "study.yaml", "-o", "training.epochs=5")
    assert "nothing to do" in again.stdout
    assert "ranking" not in again.stdout


@pytest.mark.fault
def test_a_killed_driver_continues_without_loss_or_repetition(
    finished: Path, tmp_path: Path
) -> None:
    """Killed in every phase, with half a line in its files and a model cut short on top of it."""
    studies.write(tmp_path, studies.tiny())
    folder = tmp_path / "results/tiny"
    path = folder / "trials.jsonl"

    def models() -> list[Path]:
        return [p for p in (tmp_path / "storage").rglob("*.npz") if p.stem.strip("0")]

    def recorded(phase: str) -> bool:
        return path.exists() and path.read_text().count(f'"phase":"{phase}"') >= 3

    reached = (lambda: len(models()) >= 2, lambda: recorded("search"), lambda: recorded("confirm"))
    for ready in reached:
        driver = subprocess.Popen(
            [sys.executable, "-m", "sweeps", "run", "study.yaml"],
            cwd=tmp_path,
            env=studies.environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + studies.LIMIT_SECONDS
        while driver.poll() is None and time.monotonic() < deadline and not ready():
            time.sleep(0.05)
        assert driver.poll() is None, "the study ended before it could be killed"
        os.kill(driver.pid, signal.SIGKILL)
        driver.wait()
    for file in (path, folder / "optuna.journal"):
        with file.open("a") as cut:
            cut.write('{"kind":"tr')
    lock = folder / "optuna.journal.lock"
    if not lock.is_symlink():
        lock.symlink_to("optuna.journal")
    damaged = models()[0]
    damaged.write_bytes(damaged.read_bytes()[:1000])
    done = studies.musweep(tmp_path, "run", "study.yaml")
    assert done.returncode == 0, done.stderr
    assert f"{damaged.name} is damaged and will be made again" in done.stderr
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    keys = [line["key"] for line in lines if line["kind"] == "trial"]
    assert len(keys) == len(set(keys))
    undisturbed = records(finished / "results/tiny")
    assert numbers(records(tmp_path / "results/tiny")) == numbers(undisturbed)


LOOPBACK_ADDRESSES = {
    "0100007F",
    "0000000000000000FFFF00000100007F",
    "00000000000000000000000001000000",
}
"""127.0.0.1, the same in IPv6, and ::1, as /proc writes them."""


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.fault)]
)
def test_a_run_listens_on_loopback_alone_and_ctrl_c_ends_it_cleanly(
    finished: Path, tmp_path: Path, number: signal.Signals
) -> None:
    """Ray's processes and its workers, MLflow's and the driver itself, while trials run; then it says how to continue."""
    studies.write(tmp_path, studies.tiny(search__trials=50))
    trained = ["--storage", str(finished / "storage")]
    driver = subprocess.Popen(
        [sys.executable, "-m", "sweeps", "run", "study.yaml", *trained],
        cwd=tmp_path,
        env=studies.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        # Where the tests run in the background, a shell has SIGINT ignored, which a child inherits.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    path = tmp_path / "results/tiny/trials.jsonl"
    deadline = time.monotonic() + studies.LIMIT_SECONDS
    while time.monotonic() < deadline:
        if path.exists() and path.read_text().count('"phase":"search"') >= 3:
            break
        time.sleep(0.05)
    ours = with_descendants(driver.pid)
    addresses = listening(ours) if sys.platform == "linux" else set()
    driver.send_signal(number)
    shown, _ = driver.communicate(timeout=studies.LIMIT_SECONDS)
    if sys.platform == "linux":  # elsewhere there is no /proc
        assert len(ours) > 4, ours
        assert addresses and addresses <= LOOPBACK_ADDRESSES, addresses
    assert driver.returncode == 130, shown
    assert "Continue with the same command" in shown
    assert "Traceback" not in shown


@pytest.mark.usefixtures("ray_here")
def test_a_reference_that_cannot_be_trained_is_named(tmp_path: Path) -> None:
    """A worker that raises, without a study around it."""
    from mu.training import Recipe
    from sweeps import preflight
    from sweeps.errors import SweepError
    from sweeps.plan import Plan
    from sweeps.study import study
    from sweeps.workers import cluster, tuning

    wanted = study.read(studies.write(tmp_path, studies.tiny()))
    plan = Plan(wanted, preflight.load_data(wanted, "study.yaml"))
    with cluster.join(None, wanted.resources) as joined:
        recipe = Recipe(lr=0.1)
        object.__setattr__(recipe, "optimizer", "no_such_optimizer")  # what its checks would refuse
        problem = replace(plan.problem("some", 1), recipe=recipe)
        source = OneTraining(problem, lambda _: None)
        with pytest.raises(
            SweepError, match=r"retrain model of seed 1 cannot be trained: .*no_such"
        ):
            tuning.Workers(plan, joined).run(source, {("some", 1): problem})


@pytest.mark.usefixtures("ray_here")
def test_a_store_that_cannot_be_written_ends_before_the_sweep(tmp_path: Path) -> None:
    studies.write(tmp_path, studies.tiny())
    (tmp_path / "file").write_text("")
    for option, value in (
        ("--tracking-uri", f"sqlite:///{tmp_path}/file/mlflow.db"),
        ("--storage", str(tmp_path / "file/storage")),
    ):
        done = studies.here(tmp_path, "run", "study.yaml", option, value)
        assert done.returncode == 2
        assert option in done.stderr
        assert "cannot be written to" in done.stderr


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with musweep installed from its wheel, as a user has it."""
    folder = tmp_path_factory.mktemp("installed")
    wheels, site, source = folder / "wheels", folder / "site", folder / "source"
    subprocess.run(
        ["git", "clone", "--quiet", str(studies.ROOT), str(source)], check=True, timeout=300
    )
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    built = [*pip, "wheel", "--no-deps", "--no-build-isolation", "-w", str(wheels), str(source)]
    subprocess.run(built, check=True)
    (wheel,) = wheels.glob("musweep-*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(site), str(wheel)], check=True)
    return site


def run_installed(site: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a Python command line in a folder, where musweep is the installed one alone."""
    return subprocess.run(
        [sys.executable, "-P", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        timeout=studies.LIMIT_SECONDS,
        check=False,
    )


def test_the_wheel_carries_spaces_and_studies(installed: Path, tmp_path: Path) -> None:
    """Installed elsewhere, the command works from an empty folder."""
    command = str(installed / "bin/musweep")
    listed = run_installed(installed, tmp_path, command, "methods", "--json")
    assert listed.returncode == 0, listed.stderr
    assert "natmu" in [m["name"] for m in json.loads(listed.stdout)]
    planned = run_installed(installed, tmp_path, command, "run", "demo", "--dry-run")
    assert planned.returncode == 0, planned.stderr
    assert "natmu" in planned.stdout
    wrong = run_installed(installed, tmp_path, command, "run", "demo", "-o", "search.trials=-1")
    page = Path(wrong.stderr.rstrip().rpartition("(see ")[2].removesuffix(")"))
    assert page.is_absolute() and page.name == "study.md" and page.is_file()


@pytest.mark.fault
def test_an_installed_wheel_joins_a_cluster_that_is_already_there(
    finished: Path, installed: Path, tmp_path: Path
) -> None:
    """Two worker nodes besides a head without CPUs; the numbers are those of one machine."""
    code = f"""
import subprocess, sys
from ray.cluster_utils import Cluster
cluster = Cluster(initialize_head=True, head_node_args={{"num_cpus": 0, "include_dashboard": False}})
for _ in range(2):
    cluster.add_node(num_cpus=1)
cluster.wait_for_nodes()
command = [sys.executable, "-P", {str(installed / "bin/musweep")!r}, "run", "study.yaml"]
done = subprocess.run([*command, "--address", cluster.address], timeout={studies.LIMIT_SECONDS})
cluster.shutdown()
sys.exit(done.returncode)
"""
    studies.write(tmp_path, studies.tiny())
    done = run_installed(installed, tmp_path, "-c", code)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    undisturbed = records(finished / "results/tiny")
    assert numbers(records(tmp_path / "results/tiny")) == numbers(undisturbed)
    hosts = {r.environment.get("host") for r in undisturbed.values()}
    assert len(hosts) == 1
    assert (tmp_path / "results/tiny/report/index.html").is_file()
