"""Injected faults: whatever breaks, every planned trial is recorded once, with the numbers of an undisturbed run."""

from __future__ import annotations

import errno
import http.server
import io
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import ray
import studies
import torch
from job_source import OneTraining
from lose_nodes import wait_for, workers
from mlflow.tracking import MlflowClient
from ray._common.utils import get_system_memory
from ray._private.utils import get_used_memory
from servers import mlflow_server
from studies import ROOT, numbers, records

from sweeps import preflight
from sweeps.plan import Plan
from sweeps.search.optuna_storage import _Journal
from sweeps.study import study
from sweeps.tracking.mlflow import local_uri
from sweeps.tracking.mlflow_runs import KEY
from sweeps.workers import cluster, job_searcher, tuning

pytestmark = [pytest.mark.slow, pytest.mark.fault]
TROUBLES = {
    "hangs": "time.sleep(3600)",
    "raises": "raise RuntimeError(f'told to fail {Mishap(2)}')",
    "greedy": "np.ones(10**15)",
    "diverges": "[w.data.fill_(float('nan')) for w in model.parameters()]",
    "mortal": "die(2)",
    "doomed": "die(4)",
}
METHOD = '''"""{name}: finetunes, but not before something happens.

Paper: none.
"""
import os, signal, time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mu.training import Hyperparameters, fit

NEEDS = ("retain",)
DEATHS = Path({deaths!r})


@dataclass
class Mishap:
    epoch: int


def die(times):
    """End this process, but not more than `times`; never when the folder is not there."""
    mark = DEATHS / f"{name}-{{len(list(DEATHS.glob('{name}-*')))}}"
    if DEATHS.is_dir() and not mark.name.endswith(f"-{{times}}"):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)


def unlearn(model, split, generator, *, epochs: int = 2):
    """Yields after each epoch."""
    {trouble}
    yield from fit(model, split.retain, generator, Hyperparameters(epochs=epochs, batch_size=64, lr=0.01))
'''


def write_troubles(folder: Path, names: tuple[str, ...], deaths: Path) -> None:
    """Write a study of troubled methods, with one search trial and one report seed each."""
    own = folder / "own"
    own.mkdir()
    for name in names:
        text = METHOD.format(name=name, trouble=TROUBLES[name], deaths=str(deaths))
        (own / f"{name}.py").write_text(text)
    study = studies.tiny(
        forget={"some": studies.TINY["forget"]["some"]},
        methods=[*names, studies.JIT],
        seeds={"search": [0], "report": [1], "retrain": 1},
        search__trials=1,
        experiments={"defaults": False},
    )
    studies.write(folder, {**study, "trial_timeout": 20})


def run_troubles(folder: Path) -> subprocess.CompletedProcess[str]:
    return studies.here(folder, "run", "study.yaml", "--methods-path", "own")


def test_what_goes_wrong_in_a_trial_is_recorded_or_repeated(finished: Path, tmp_path: Path) -> None:
    """The trials of one study hang, raise, want too much memory, diverge, and lose their workers."""
    folder, deaths = tmp_path / "troubled", tmp_path / "deaths"
    for made in (folder, deaths):
        made.mkdir()
    write_troubles(folder, tuple(TROUBLES), deaths)
    done = run_troubles(folder)
    assert done.returncode == 1, done.stderr
    first = {r.method: r for r in records(folder / "results/tiny").values() if r.phase == "search"}
    assert {m: (r.status, r.cause) for m, r in first.items()} == {
        "hangs": ("failed", "timeout"),
        "raises": ("failed", "exception"),
        "greedy": ("failed", "memory"),
        "diverges": ("diverged", ""),
        "mortal": ("finished", ""),
        "doomed": ("failed", "infrastructure"),
        "jit": ("finished", ""),
    }
    assert first["hangs"].reason == "timeout: it had not ended after 20 s"
    assert "RuntimeError: told to fail Mishap(epoch=2)" in first["raises"].reason
    assert "4 trials failed" in done.stdout
    assert "not even one like it fits" in first["greedy"].reason
    assert "its worker was lost 4 times" in first["doomed"].reason
    assert len(list(deaths.iterdir())) == 2 + 4

    # What says nothing of the method is repeated; what does is not.
    before = (folder / "results/tiny/trials.jsonl").read_text().splitlines()
    assert run_troubles(folder).returncode == 1
    after = (folder / "results/tiny/trials.jsonl").read_text().splitlines()
    assert after[: len(before)] == before
    new = [json.loads(line) for line in after[len(before) :]]
    assert [(r["phase"], r["method"], r["status"]) for r in new] == [
        ("search", "doomed", "finished"),
        ("confirm", "doomed", "finished"),
    ]
    assert "nothing to do" in run_troubles(folder).stdout
    arrived = mlflow_keys(folder / "results/tiny", local_uri(folder / "results/tiny"))
    assert arrived == Counter(list(records(folder / "results/tiny")))

    # Those beside them have the numbers that they have without them; on report seeds, gaps are to fewer retrained models here.
    undisturbed = numbers(records(finished / "results/tiny"))
    searched = {
        key: r
        for key, r in records(folder / "results/tiny").items()
        if (r.method, r.phase) == ("jit", "search")
    }
    assert len(searched) == 1
    assert numbers(searched) == {key: undisturbed[key] for key in searched}


GREEDY = """'''greedy: takes memory step by step, and finetunes if it is let.

Paper: none.
'''
import time

import numpy as np

from mu.training import Hyperparameters, fit

NEEDS = ("retain",)


def unlearn(model, split, generator, *, epochs: int = 2):
    '''Yields after each epoch.'''
    held = []
    for _ in range({steps}):
        held.append(np.ones(2**26, np.uint8))
        time.sleep(0.02)
    yield from fit(model, split.retain, generator, Hyperparameters(epochs=epochs, batch_size=64, lr=0.01))
"""
ROOM = 5 * 2**30
"""Bytes that a node may use above those in use, of which a study itself takes up to two fifths.

The greedy method wants twice as much, so that it is ended even when other processes free theirs meanwhile.
"""


@pytest.mark.usefixtures("no_ray_here")
@pytest.mark.soak
def test_a_trial_that_takes_a_nodes_memory_is_ended_by_ray_and_recorded(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    used, total = get_used_memory(), get_system_memory()
    if total - used < 2 * ROOM:
        pytest.skip(f"needs {2 * ROOM / 2**30:.0f} GiB, {(total - used) / 2**30:.1f} are free")
    monkeypatch.setenv("RAY_memory_monitor_refresh_ms", "100")
    monkeypatch.setenv("RAY_memory_usage_threshold", str((used + ROOM) / total))
    monkeypatch.setattr(job_searcher, "RETRIES", 1)
    (tmp_path / "own").mkdir()
    (tmp_path / "own/greedy.py").write_text(GREEDY.format(steps=2 * ROOM // 2**26))
    study = studies.tiny(
        methods=["greedy", studies.JIT],
        forget={"some": studies.TINY["forget"]["some"]},
        experiments={"defaults": False},
    )
    studies.write(tmp_path, {**study, "resources": {"concurrent": 1}})
    done = run_troubles(tmp_path)
    assert done.returncode == 1, done.stderr
    found = records(tmp_path / "results/tiny")
    greedy = [r for r in found.values() if r.method == "greedy"]
    assert [(r.phase, r.status, r.cause) for r in greedy] == [("search", "failed", "memory")]
    assert "out of memory, 2 times: OutOfMemoryError" in greedy[0].reason
    undisturbed = numbers(records(finished / "results/tiny"))
    others = {key: kept for key, kept in numbers(found).items() if found[key].method != "greedy"}
    assert studies.counts({key: found[key] for key in others}) == {
        "reference": 6,
        "search": 3,
        "confirm": 2,
    }
    assert others == {key: undisturbed[key] for key in others}


def mlflow_keys(folder: Path, uri: str) -> Counter[str]:
    """Return how often each trial is in MLflow, as a run that has ended."""
    client = MlflowClient(uri)
    (experiment,) = [e for e in client.search_experiments() if e.name == "tiny"]
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert all(run.info.status != "RUNNING" for run in runs)
    return Counter(run.data.tags[KEY] for run in runs if KEY in run.data.tags)


def test_nodes_and_workers_may_be_lost_at_any_time(finished: Path, tmp_path: Path) -> None:
    """A node is killed while references are trained, then a worker and another node during the search.

    The test sees placement on the way: two trials share a GPU that is only declared, and a training has one alone.
    """
    resources = {
        "cpus": 0.5,
        "gpus": 0.5,
        "custom": {"place": 1},
        "references": {"cpus": 1, "gpus": 1},
    }
    precise = {**studies.TINY["training"], "precision": "float32"}
    studies.write(tmp_path, {**studies.tiny(training=precise), "resources": resources})
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests" / "lose_nodes.py"), str(tmp_path)],
        env=studies.environment(), capture_output=True, text=True, timeout=2 * studies.LIMIT_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert [line for line in done.stdout.splitlines() if line.startswith("killed")] == [
        "killed a node that trained a reference",
        "killed a worker of the search",
        "killed a node of the search",
    ]
    found = records(tmp_path / "results/tiny")
    assert numbers(found) == numbers(records(finished / "results/tiny"))
    for r in found.values():
        share = {"cpus": 1, "gpus": 1} if r.phase == "reference" else {"cpus": 0.5, "gpus": 0.5}
        assert r.resources == {**share, "place": 1}
    summary = json.loads((tmp_path / "results/tiny/summary.json").read_text())
    assert summary["slots"] >= 4, "two on each of two nodes"
    gpu = sum(r.cost("gpus") for r in found.values())
    assert summary["cost_seconds"]["gpus"] == pytest.approx(gpu)
    assert 0 < summary["efficiency"] <= 1
    lines = (tmp_path / "results/tiny/trials.jsonl").read_text().splitlines()
    assert len(lines) == 1 + len(found)
    assert not list((tmp_path / "storage").rglob(".writing*"))


def test_a_reference_goes_on_from_its_checkpoint(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker is killed at the third checkpoint, and no epoch that was saved is run again."""
    wanted = study.read(finished / "study.yaml", ["training.epochs=60"])
    plan = Plan(wanted, preflight.load_data(wanted, "study.yaml"))
    problem = plan.problem("some", 1)
    epochs: list[int] = []

    def saved(arrays: Any) -> None:
        state = torch.load(io.BytesIO(arrays["method"].tobytes()), weights_only=True)
        epochs.append(state["epochs"])
        if len(epochs) == 3:
            (worker,) = workers(ray._private.worker._global_node)
            os.kill(worker, signal.SIGKILL)

    monkeypatch.setattr(tuning, "SAVE_SECONDS", {"trial": 0.05, "reference": 0.05})
    source = OneTraining(problem, saved)
    with cluster.join(None, wanted.resources) as joined:
        tuning.Workers(plan, joined).run(source, plan.problems)
    assert len(epochs) > 3
    assert epochs == sorted(set(epochs)), "after the loss it did not begin again"

    model = problem.build()
    list(problem.train("retrain", model))
    for name, weights in model.state_dict().items():
        np.testing.assert_array_equal(source.weights[name], weights.numpy())


class Receiver(http.server.BaseHTTPRequestHandler):
    told: list[dict[str, Any]] = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


def test_a_study_is_watched_ended_by_its_budget_and_loses_its_mlflow(tmp_path: Path) -> None:
    """The test asks for the status while the study runs, ends its MLflow server, and waits for budget and notice."""
    receiver = http.server.HTTPServer(("127.0.0.1", 0), Receiver)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    store, folder = f"sqlite:///{tmp_path}/server.db", tmp_path / "results/tiny"
    study = studies.tiny(search__trials=1000, experiments={"defaults": False})
    study["notify"] = f"http://me:hush@127.0.0.1:{receiver.server_port}/unspoken"
    study["budget"] = {"cpu_hours": 30 / 3600}
    studies.write(tmp_path, study)
    with mlflow_server(store, tmp_path) as address:
        driver = subprocess.Popen(
            [sys.executable, "-m", "sweeps", "run", "study.yaml", "--tracking-uri", address],
            cwd=tmp_path, env=studies.environment(), text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        trials = folder / "trials.jsonl"
        wait_for(lambda: trials.exists() and '"phase":"search"' in trials.read_text(), driver)
        shown = studies.here(tmp_path, "status", "results/tiny").stdout
    said, _ = driver.communicate(timeout=studies.LIMIT_SECONDS)
    receiver.shutdown()
    receiver.server_close()
    assert driver.returncode == 0, said
    for text in (f"run by process {driver.pid} on ", "1000", "used: ", "to go, about: "):
        assert text in shown
    assert "not running" in studies.here(tmp_path, "status", "results/tiny").stdout

    assert "the budget of 0.00833333 cpu_hours ends the search after" in said
    found = records(folder)
    cells = Counter((r.forget, r.method) for r in found.values() if r.phase == "search")
    assert len(cells) == 4
    assert max(cells.values()) - min(cells.values()) <= 1
    assert sum(r.phase == "confirm" for r in found.values()) == 4 * 2
    assert (folder / "report/index.html").is_file()
    assert "nothing to do" in studies.here(tmp_path, "run", "study.yaml").stdout

    (told,) = Receiver.told
    assert (told["event"], told["trials"], told["failed"]) == ("finished", len(found), 0)
    written = [path for path in folder.rglob("*") if path.is_file()]
    assert not [path for path in written if b"hush" in path.read_bytes()]
    assert not [path for path in written if b"unspoken" in path.read_bytes()]

    assert "send them with: musweep sync" in said
    with mlflow_server(store, tmp_path) as address:  # which takes the files as well
        assert musweep_sync(tmp_path, address) > 0
        assert musweep_sync(tmp_path, address) == 0
    assert mlflow_keys(folder, store) == Counter(list(found))


def musweep_sync(folder: Path, uri: str) -> int:
    """Send what MLflow lacks; returns the number of records sent."""
    done = studies.here(folder, "sync", "results/tiny", "--tracking-uri", uri)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split("sent ")[1].split()[0])


@pytest.mark.soak
def test_a_full_disk_ends_the_run_and_the_next_goes_on(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """First there is no space for the records, and then none for Optuna's journal."""
    studies.write(tmp_path, studies.tiny(methods=[studies.JIT], experiments={"defaults": False}))
    shutil.copytree(finished / "storage", tmp_path / "storage")
    folder = tmp_path / "results/tiny"
    sync, append = os.fsync, _Journal.append_logs

    def full(handle: int) -> None:
        if "trials.jsonl" in os.readlink(f"/proc/self/fd/{handle}") and next(left) <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    def full_journal(self: _Journal, logs: Any) -> None:
        if next(left) <= 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, logs)

    for owner, name, broken, times in (
        (os, "fsync", full, 15),
        (_Journal, "append_logs", full_journal, 10),
    ):
        left = itertools.count(times, -1)
        monkeypatch.setattr(owner, name, broken)
        done = studies.here(tmp_path, "run", "study.yaml")
        monkeypatch.undo()
        assert done.returncode == 1, done.stdout + done.stderr
        assert "No space left on device" in done.stderr
        assert "Traceback" not in done.stderr
        assert all(json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines())
    done = studies.here(tmp_path, "run", "study.yaml")
    assert done.returncode == 0, done.stderr
    found = records(folder)
    assert studies.counts(found) == {"reference": 12, "search": 6, "confirm": 4}
    undisturbed = numbers(records(finished / "results/tiny"))
    assert numbers(found) == {key: undisturbed[key] for key in found}
