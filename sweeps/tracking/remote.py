"""Commands that run on a cluster's head from another machine, as Ray jobs through its dashboard's address."""

from __future__ import annotations

import http.client
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sweeps.errors import StudyError, SweepError

ANSWER_SECONDS = 5.0
"""How long the dashboard may take to answer at all; Ray's client would wait for ever."""
PAUSE_SECONDS = 0.5
MODE = "RAY_AUTH_MODE"


def run(arguments: Sequence[str], address: str) -> str:
    """Run ``musweep`` with these arguments on the head; return what it printed.

    Args:
        address: Of the cluster's dashboard, such as ``http://localhost:8265`` while its port is forwarded.

    Raises:
        StudyError: There is no cluster at the address, or its token is another one.
        SweepError: The command failed; the message is what it printed.
    """
    with _token_sent():
        return _run(arguments, address)


@contextmanager
def _token_sent() -> Iterator[None]:
    """Let Ray send the token of the cluster where there is one; a Ray that is started later here needs none."""
    given = any(os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    held = given or (Path.home() / ".ray/auth_token").is_file()
    if not held or MODE in os.environ:
        yield
        return
    os.environ[MODE] = "token"  # which Ray reads when it is imported
    try:
        yield
    finally:
        del os.environ[MODE]


def _run(arguments: Sequence[str], address: str) -> str:
    from ray.job_submission import JobStatus, JobSubmissionClient

    try:
        _check_answer(address)
        jobs = JobSubmissionClient(address)
        job = jobs.submit_job(entrypoint=shlex.join(["musweep", *arguments]))
    except (
        Exception
    ) as error:  # of the connection, of authentication, or of an address without a scheme
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise StudyError(f"--address {address}: no job can be sent there: {reason}") from error
    while not (status := jobs.get_job_status(job)).is_terminal():
        time.sleep(PAUSE_SECONDS)
    shown = jobs.get_job_logs(job)
    if status is not JobStatus.SUCCEEDED:
        raise SweepError(f"on {address}: {shown.strip() or jobs.get_job_info(job).message}")
    return shown


def _check_answer(address: str) -> None:
    """Raise OSError or HTTPException unless a web server answers, whatever it says."""
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or parts.hostname is None:
        return  # Ray has words for this
    kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
    connection = kinds[parts.scheme](parts.hostname, parts.port, timeout=ANSWER_SECONDS)
    try:
        connection.request("GET", "/api/version")
        connection.getresponse()
    finally:
        connection.close()
