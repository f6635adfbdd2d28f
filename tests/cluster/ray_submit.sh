#!/usr/bin/env bash
# The way in, for real: `ray up`, `ray submit` and `ray job submit` of cluster.local.yaml, over SSH on loopback.
#
#     tests/cluster/ray_submit.sh [PYTHON]
#
# One sshd of its own (a free port, its own keys, an empty home) stands for three machines, 127.0.0.2 to .4: a
# head without CPUs and two workers. Touches neither the system's sshd, nor ~/.ssh, nor any other Ray; what it
# started carries its folder's name in its environment or command, and is ended by process id.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$(command -v "${1:-python}")
bin=$(dirname "$python")

skip() { echo "ray_submit: skipped: $1"; exit 0; }
sshd=$(PATH="$PATH:/usr/sbin" command -v sshd) || skip "there is no sshd (Debian's package openssh-server)"
for program in ssh ssh-keygen rsync; do
    command -v "$program" > /dev/null || skip "there is no $program"
done

work=$(mktemp -d /tmp/mw.XXXXXX)
ours() {  # process ids of what this script started on the "machines"
    grep -lsaE "$work/(home|ray)" /proc/[0-9]*/environ /proc/[0-9]*/cmdline 2> /dev/null |
        cut -d/ -f3 | sort -un | grep -vx "$$" || true
}
clean() {
    status=$?
    trap - EXIT
    [ "$status" = 0 ] || tail -n 25 "$work"/*.log 2> /dev/null || true
    for signal in TERM TERM KILL KILL; do
        for process in $(ours); do kill -"$signal" "$process" 2> /dev/null || true; done
        [ -z "$(ours)" ] && break
        sleep 2
    done
    [ ! -f "$work/sshd.pid" ] || kill "$(cat "$work/sshd.pid")" 2> /dev/null || true
    rm -rf "$work"
    exit "$status"
}
trap clean EXIT

read -r port gcs dashboard mlflow <<< "$("$python" - <<'PY'
import socket
sockets = [socket.socket() for _ in range(4)]
for each in sockets:
    each.bind(("127.0.0.1", 0))
print(*(each.getsockname()[1] for each in sockets))
PY
)"

mkdir -p "$work"/{home/.musweep/bin,laptop,bin,fetched}
ssh-keygen -q -t ed25519 -N '' -f "$work/key"
ssh-keygen -q -t ed25519 -N '' -f "$work/host_key"
cat > "$work/sshd_config" <<CONFIG
Port $port
ListenAddress 127.0.0.2
ListenAddress 127.0.0.3
ListenAddress 127.0.0.4
HostKey $work/host_key
PidFile $work/sshd.pid
AuthorizedKeysFile $work/key.pub
AuthenticationMethods publickey
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
MaxStartups 50
SetEnv HOME=$work/home
CONFIG
[ "$(id -u)" != 0 ] || mkdir -p /run/sshd
"$sshd" -f "$work/sshd_config" -E "$work/sshd.log"

# There is no field for the port of SSH in a cluster file: a wrapper adds it, on the "laptop" and on the head.
printf '#!/bin/sh\nexec %s -F none -p %s -i %s/key "$@"\n' "$(command -v ssh)" "$port" "$work" > "$work/bin/ssh"
for program in python ray; do
    printf '#!/bin/sh\nexec %s/%s "$@"\n' "$bin" "$program" > "$work/home/.musweep/bin/$program"
done
printf '#!/bin/sh\nexec %s -m sweeps "$@"\n' "$python" > "$work/home/.musweep/bin/musweep"
chmod +x "$work"/bin/* "$work"/home/.musweep/bin/*
cat > "$work/home/.bashrc" <<RC
# Where other people's Ray may run, "auto" may find theirs.
export RAY_ADDRESS=127.0.0.2:$gcs
export PATH=$work/bin:\$PATH PYTHONPATH=$work/home/musweep RAY_TMPDIR=$work/ray PYTHONUNBUFFERED=1
RC
printf '. ~/.bashrc\n' > "$work/home/.bash_profile"

# The laptop: a checkout with a study in it, and a token.
export HOME=$work/laptop PATH=$work/bin:$bin:$PATH RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
export TMPDIR=$work/laptop RAY_TMPDIR=$work/laptop
unset RAY_ADDRESS
ray get-auth-token --generate > /dev/null 2>&1
rsync -a --exclude .git --exclude .venv --exclude results --exclude storage ./ "$work/checkout/"
cd "$work/checkout"
mkdir -p studies
cat > studies/small.yaml <<'STUDY'
study: small
data: {name: digits, subset: 300}
model: small_cnn
training: {epochs: 2, lr: 0.1, batch_size: 64, schedule: onecycle}
forget: {some: {kind: random, fraction: 0.1}}
methods: [{name: finetune, fix: {epochs: 2}}, jit]
seeds: {search: [0], report: [1], retrain: 1}
search: {trials: 3, sampler: random, finalists: 1}
experiments: {defaults: false}
STUDY
sed 's/study: small/study: job/' studies/small.yaml > studies/job.yaml

# cluster.local.yaml with these machines and ports; without `ray stop`, which would end every Ray of this host,
# and without the environment, which is this one.
"$python" - "$work" "$gcs" "$dashboard" "$mlflow" <<'PY' > "$work/cluster.yaml"
import getpass, sys, yaml

work, gcs, dashboard, mlflow = sys.argv[1:]
text = open("cluster.local.yaml").read().replace("5000", mlflow).replace("6379", gcs)
cluster = yaml.safe_load(text.replace("musweep ui", f"musweep ui --port {mlflow}"))
cluster["cluster_name"] = work.rpartition(".")[2].lower()
cluster["provider"] |= {"head_ip": "127.0.0.2", "worker_ips": ["127.0.0.3", "127.0.0.4"]}
cluster["auth"] = {"ssh_user": getpass.getuser(), "ssh_private_key": f"{work}/key"}
cluster["setup_commands"] = [c for c in cluster["setup_commands"] if "venv" not in c and "pip" not in c]
# A folder each: in one that is shared, a node replaces the working directory that another is in.
own = "--object-store-memory=200000000 --dashboard-agent-listen-port=0 --disable-usage-stats"
address = "$(echo $SSH_CONNECTION | cut -d' ' -f3)"
here = f"--node-ip-address={address} --temp-dir={work}/ray/{address}"
for kind, more in (
    ("head", f"{own} {here} --dashboard-port={dashboard}"),
    ("worker", f"{own} {here} --num-cpus=1"),
):
    commands = cluster[f"{kind}_start_ray_commands"]
    cluster[f"{kind}_start_ray_commands"] = [
        f"{c} {more}" if "ray start" in c else c for c in commands if c != "ray stop"
    ]
yaml.safe_dump(cluster, sys.stdout, sort_keys=False, width=1000)
PY

began=$SECONDS
say() { echo "ray_submit: $* ($((SECONDS - began)) s)"; }
ray up -y --no-config-cache "$work/cluster.yaml" > "$work/up.log" 2>&1
say "the cluster is up"

ray submit "$work/cluster.yaml" sweeps/submit.py -- run studies/small.yaml > "$work/submit.log" 2>&1
say "ray submit has run a study"
# `ray up` returns when the head is up; on a slow machine the second worker comes after the study has ended.
until ray exec "$work/cluster.yaml" 'ray status' > "$work/status.log" 2>&1 && grep -q '/2.0 CPU' "$work/status.log"; do
    [ $((SECONDS - began)) -lt 300 ] || exit 1
    sleep 5
done
say "both workers have joined"

export RAY_API_SERVER_ADDRESS=http://127.0.0.1:$dashboard
ray job submit --no-wait --submission-id small-job --working-dir . -- musweep run studies/job.yaml > "$work/job.log" 2>&1
ray job logs --follow small-job >> "$work/job.log" 2>&1
ray job status small-job >> "$work/job.log" 2>&1
grep -q "'small-job' succeeded" "$work/job.log"
say "ray job submit has run a study"
env -u RAY_AUTH_MODE PYTHONPATH=. "$python" -m sweeps status '~/results/job' --address "$RAY_API_SERVER_ADDRESS" > "$work/asked.log"
grep -q 'job: 12 trials recorded' "$work/asked.log"
say "musweep status has asked the head"

ray rsync-down "$work/cluster.yaml" '~/results/' "$work/fetched/results" > "$work/fetch.log" 2>&1
cd "$work/fetched/results"
for study in small job; do
    PYTHONPATH=$work/checkout "$python" -m sweeps status "$study"
    rm -r "$study/report"
    PYTHONPATH=$work/checkout "$python" -m sweeps report "$study"
done
PYTHONPATH=$work/checkout "$python" - "http://127.0.0.1:$mlflow" <<'PY'
import sys
from collections import Counter
from pathlib import Path

from mu import record
from sweeps.tracking.mlflow_runs import KEY
from sweeps.tracking.mlflow_store import MlflowClient

client = MlflowClient(sys.argv[1])
for study in ("small", "job"):
    _, found = record.read(Path(study) / "trials.jsonl")
    assert Counter(r.phase for r in found) == {"reference": 4, "search": 6, "confirm": 2}, found
    assert {r.status for r in found} == {"finished"}, found
    assert (Path(study) / "report/index.html").is_file()
    experiment = client.get_experiment_by_name(study)
    runs = client.search_runs([experiment.experiment_id], max_results=1000)
    assert {run.data.tags[KEY] for run in runs if KEY in run.data.tags} == {r.key for r in found}
first, second = ({r.phase + r.method + str(r.number): r.metrics for r in record.read(Path(s) / "trials.jsonl")[1]}
                 for s in ("small", "job"))
assert set(first) == set(second)
PY
say "results and MLflow's runs are those of both studies"
