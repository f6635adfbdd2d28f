"""Long trials are saved between epochs: a lost worker and a lost driver cost the epochs since then, and no numbers."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
import studies
from lose_nodes import wait_for
from studies import numbers, records

from sweeps.store import Drafts, Store

METHOD = '''"""slow: finetunes; takes its time, and may lose its worker once, as long as a file is there.

Paper: none.
"""
import os, signal, time
from pathlib import Path

from mu.snapshot import resumable
from mu.training import make_optimizer, one_pass

NEEDS = ("retain",)
SLOW, LOG, KILLED = Path({slow!r}), Path({log!r}), {killed}


def unlearn(model, split, generator, *, epochs: int = 12):
    """Yields after each epoch."""
    stepper = make_optimizer(model, "sgd", 0.01)
    for epoch in resumable(epochs, generator, model, stepper):
        if SLOW.exists():
            with LOG.open("a") as log:
                print(os.getpid(), epoch, file=log, flush=True)
            if KILLED and epoch == 5 and len({{line.split()[0] for line in LOG.read_text().splitlines()}}) == 1:
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(0.8)
        one_pass(model, stepper, split.retain, generator, 64)
        yield
'''
DRIVER = """
import sys
from sweeps import tuner
tuner.SAVE_SECONDS = 0.1
from sweeps.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def logged(log: Path) -> dict[str, list[int]]:
    """Which epochs each process ran."""
    epochs = defaultdict(list)
    for line in log.read_text().splitlines() if log.exists() else []:
        process, epoch = line.split()
        epochs[process].append(int(epoch))
    return dict(epochs)


@pytest.mark.slow
def test_a_long_trial_goes_on_when_its_worker_and_its_driver_are_lost(tmp_path: Path) -> None:
    slow, log, own = tmp_path / "slow", tmp_path / "log", tmp_path / "own"
    own.mkdir()
    (own / "slow.py").write_text(METHOD.format(slow=str(slow), log=str(log), killed=True))
    study = studies.tiny(
        forget={"some": studies.TINY["forget"]["some"]},
        methods=["slow"],
        seeds={"search": [0], "report": [1]},
        search__trials=1,
        experiments={"defaults": False},
    )
    studies.write(tmp_path, study)
    command = ["run", "study.yaml", "--methods-path", "own"]

    undisturbed = studies.musweep(tmp_path, *command, "--results", "undisturbed")
    assert undisturbed.returncode == 0, undisturbed.stderr
    assert not log.exists()

    slow.touch()
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, *command], cwd=tmp_path, env=studies.environment(),
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip
    wait_for(lambda: any(ran[-1] >= 9 for ran in logged(log).values()), driver)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.communicate()
    assert list((tmp_path / "storage" / "begun").rglob("*.npz"))

    done = studies.musweep(tmp_path, *command)
    assert done.returncode == 0, done.stderr
    first, second, third, *_ = logged(log).values()
    assert first == [0, 1, 2, 3, 4, 5]
    assert second[0] in range(1, 6), "it went on behind an epoch that was saved"
    assert third[0] in range(second[0] + 1, 10)
    assert (second, third) == (
        list(range(second[0], second[-1] + 1)),
        list(range(third[0], 12)),
    )
    found = records(tmp_path / "results/tiny")
    assert numbers(found) == numbers(records(tmp_path / "undisturbed/tiny"))
    (searched,) = [r for r in found.values() if r.phase == "search"]
    assert [point["epoch"] for point in searched.curve] == list(range(13))
    assert searched.time_unlearn > 0.8 * 12, "what lost processes did is billed once"
    assert not list((tmp_path / "storage").rglob("begun/*/*.npz"))


def test_drafts_are_found_by_the_next_run_until_they_are_dropped(tmp_path: Path) -> None:
    drafts = Drafts(str(tmp_path))
    assert drafts.get("ab") is None
    for state in range(3):
        drafts.put("ab", {"state": np.array(state)})
    drafts.put("cd", {"state": np.array(9)})
    drafts.drop("cd")
    drafts.close()
    later = Drafts(str(tmp_path))
    found = later.get("ab")
    assert found is not None and found["state"] == 2
    assert later.get("cd") is None
    later.drop("ab")
    later.drop("never there")
    later.close()
    assert Store(str(tmp_path / "begun")).keys() == set()


def test_a_draft_that_cannot_be_written_is_no_failure(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    drafts = Drafts(str(tmp_path))
    (tmp_path / "begun").write_text("in the way")
    drafts.put("ab", {"state": np.array(1)})
    drafts.close()
    assert "what has begun cannot be saved" in caplog.text


def test_nothing_waits_for_a_slow_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drafts, go, written = Drafts(str(tmp_path)), threading.Event(), []

    def put(key: str, arrays: dict[str, np.ndarray]) -> None:
        go.wait(30)
        written.append(int(arrays["state"]))

    monkeypatch.setattr(drafts.store, "put", put)
    for state in range(50):
        drafts.put("ab", {"state": np.array(state)})
    go.set()
    drafts.close()
    assert len(written) <= 2, "only the newest is worth writing"
    assert written[-1] == 49
