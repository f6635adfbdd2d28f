"""The SLURM script: its shell, and a job of two nodes on this machine that is requeued and continues."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import ray
import studies

SCRIPT = studies.ROOT / "examples/slurm/musweep.sbatch"
STUBS = {
    # A step runs its command once, on this machine; a stop of the step is one of its command.
    "srun": 'while [ "${1#--}" != "$1" ]; do shift; done\nexec "$@"',
    "scontrol": 'if [ "$1" = show ]; then printf "%s\\n" $NODES; else echo "$@" >> scontrol.txt; fi',
    "musweep": f'exec "{sys.executable}" -m sweeps "$@"',
}


def test_bash_and_shellcheck_have_nothing_against_it() -> None:
    checked = subprocess.run(["bash", "-n", SCRIPT], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    if shutil.which("shellcheck"):  # functions that a trap calls are no dead code
        command = ["shellcheck", "--exclude=SC2317,SC2329", str(SCRIPT)]
        checked = subprocess.run(command, capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_a_job_without_a_study_says_how_it_is_sent() -> None:
    ended = subprocess.run(["bash", SCRIPT], capture_output=True, text=True)
    assert ended.returncode != 0
    assert "usage: sbatch musweep.sbatch STUDY.yaml" in ended.stderr


@pytest.mark.slow
@pytest.mark.fault
@pytest.mark.soak
def test_a_job_of_two_nodes_stops_before_its_end_is_requeued_and_finishes(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    for name, body in STUBS.items():
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/bash\n{body}\n")
        path.chmod(0o755)
    programs = [tmp_path / "bin", Path(sys.executable).parent]
    node = ray.util.get_node_ip_address()
    environment = {
        **studies.environment(),
        "PATH": os.pathsep.join([*map(str, programs), os.environ["PATH"]]),
        "HOME": str(tmp_path),
        "SLURM_JOB_ID": str(os.getpid()),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_CPUS_PER_TASK": "1",
        "NODES": f"{node} {node}",
    }
    study = studies.tiny(
        methods=["jit", "finetune"], forget={"three": {"kind": "full_class", "class": 3}},
        seeds__report=[1], seeds__retrain=1, search__trials=8, experiments={"defaults": False},
    )  # fmt: skip
    studies.write(tmp_path, study)
    trials, log = tmp_path / "results/tiny/trials.jsonl", tmp_path / "job.log"

    def job() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", SCRIPT, "study.yaml"], cwd=tmp_path, env=environment,
            stdout=log.open("ab"), stderr=subprocess.STDOUT,
        )  # fmt: skip

    first = job()
    deadline = time.monotonic() + studies.LIMIT_SECONDS
    while not (trials.exists() and '"phase":"search"' in trials.read_text()):
        assert first.poll() is None and time.monotonic() < deadline, log.read_text()[-3000:]
        time.sleep(0.05)
    first.send_signal(signal.SIGUSR1)
    assert first.wait(studies.LIMIT_SECONDS) == 130, log.read_text()[-3000:]
    assert (tmp_path / "scontrol.txt").read_text() == f"requeue {os.getpid()}\n"
    before = studies.records(tmp_path / "results/tiny")
    assert 0 < sum(record.phase == "search" for record in before.values()) < 16
    assert job().wait(studies.LIMIT_SECONDS) == 0, log.read_text()[-3000:]
    after = studies.records(tmp_path / "results/tiny")
    assert studies.counts(after)["search"] == 16
    assert before.keys() <= after.keys() and {r.status for r in after.values()} == {"finished"}
