"""The runs of one study in MLflow: a run of the study, in it one for each cell, and in that one for each trial."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mu.record import TrialRecord
from sweeps.tracking.mlflow_store import Metric, Param, RunTag, connect, open_experiment
from sweeps.tracking.mlflow_trial import (
    milliseconds,
    trial_metrics,
    trial_name,
    trial_status,
    trial_tags,
    trial_version,
)
from sweeps.tracking.mlflow_view import run_page, runs_page, view_tag
from sweeps.tracking.run_content import Cell, RunContent

logger = logging.getLogger(__name__)
KEY = "musweep.key"
STUDY = "musweep.study"
"""Tag with the UUID of the study that a run is of: studies of one name share an experiment."""
LEVEL = "musweep.level"
"""Tag that says what a run is: `study`, `cell`, `trial`, or `earlier` for all trials that no longer belong to the study."""
GROUP = "musweep.group"
"""Tag with the name of a run that others are nested in: of a cell its request and method."""
VERSION = "musweep.metrics"
"""Tag with the digest of a run's content: gaps change when a study gets more seeds."""
PARENT = "mlflow.parentRunId"
Group = tuple[str, ...]
WHOLE: Group = ("study",)
EARLIER: Group = ("earlier",)
MAX_METRICS, MAX_PARAMS = 1000, 100
"""What MLflow accepts in one batch."""


class Tracker:
    """The runs of one study in MLflow.

    Args:
        uri: Tracking URI: an MLflow server or a database.
        study: Name of the study, which is the experiment's, and its UUID, which its runs carry as a tag.
        artifacts: Where artifacts of a new experiment go; None leaves it to the server.

    Attributes:
        facts: Tags of the study: data and model, which all its runs carry, and versions.

    Raises:
        mlflow.exceptions.MlflowException, OSError: The store cannot be written to.
    """

    facts: Mapping[str, str] = {}

    def __init__(self, uri: str, study: tuple[str, str], artifacts: str | None = None):
        self.study, self.study_id = study
        self.client = connect(uri)
        self.experiment = open_experiment(self.client, self.study, artifacts)
        self._forget()

    def _forget(self) -> None:
        """Know nothing of what MLflow has."""
        self._groups: dict[Group, str] = {}
        self._digests: dict[Group, str] = {}
        self._ended: set[Group] = set()
        self._trials: dict[str, str] = {}
        self._parents: dict[str, str] = {}
        self._versions: dict[str, tuple[int, str]] = {}

    @property
    def pages(self) -> dict[str, str]:
        """Addresses in the UI, after that of the server: the study's cells as a table and as charts, and its own run."""
        return _pages(self.experiment, self.study_id, self._groups.get(WHOLE))

    def close(self) -> None:
        """End the runs of study and cells."""
        try:
            for group, run in self._groups.items():
                if group not in self._ended:
                    self.client.set_terminated(run)
        except Exception as error:
            logger.warning("MLflow: parent runs could not be ended: %s", error)

    def sync(self, records: Iterable[TrialRecord]) -> int:
        """Send every record that MLflow does not have yet, or has with other metrics; return how many those were.

        Args:
            records: All records of the study. Trials in MLflow that are not among them go to a run of their own.
        """
        listed = list(records)
        self._read_known()
        self._write_view()
        started = min((record.started for record in listed), default=0.0)
        self._group(WHOLE, RunContent(self.study, started=started))
        missing = self.outdated(listed)
        for record in missing:
            self.send(record)
        self._place({record.key: record for record in listed})
        return len(missing)

    def outdated(self, records: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Return the records that were not sent, or with other metrics."""
        return [
            record for record in records if self._versions.get(record.key) != trial_version(record)
        ]

    def send(self, record: TrialRecord) -> None:
        """Write one record as a nested run, in one batch; it replaces an earlier run of the same trial."""
        parent = self._cell(record)
        tags = {
            KEY: record.key,
            VERSION: trial_version(record)[1],
            PARENT: parent,
            LEVEL: "trial",
            **self._shared(),
            **trial_tags(record),
        }
        run = self.client.create_run(
            self.experiment,
            start_time=milliseconds(record.started),
            run_name=trial_name(record),
            tags=tags,
        ).info.run_id
        replaced, self._trials[record.key] = self._trials.get(record.key), run
        self._log(run, trial_metrics(record), record.knobs)
        self.client.set_terminated(run, trial_status(record), milliseconds(record.ended))
        self._versions[record.key], self._parents[run] = trial_version(record), parent
        if replaced is not None:
            self._delete(replaced)

    def write_cells(self, contents: Mapping[Cell, RunContent]) -> None:
        """Write what the cells came to into their runs."""
        for cell, content in contents.items():
            self._write(("cell", *cell), content)

    def write_study(self, content: RunContent) -> None:
        """Write what the study came to into its run."""
        self._write(WHOLE, content)

    def write_figures(self, figures: Mapping[str, Mapping[str, str]]) -> None:
        """Store the figures of methods, as texts by the names of their files, as artifacts of all of their cells.

        Raises:
            Exception: The first that could not be stored; the others are not tried.
        """
        for group, run in self._groups.items():
            for name, text in figures.get(group[-1], {}).items() if group[0] == "cell" else ():
                self.client.log_text(run, text, name)

    def write_files(self, files: Iterable[tuple[Path, str]]) -> None:
        """Store files as artifacts of the study's run, each in a folder there.

        Raises:
            Exception: The first that could not be stored; the others are not tried.
        """
        for path, folder in files:
            self.client.log_artifact(self._group(WHOLE), str(path), folder or None)

    def has_file(self, key: str, folder: str, name: str) -> bool:
        """Return whether the run of a trial has a file among its artifacts."""
        listed = self.client.list_artifacts(self._trials[key], folder)
        return f"{folder}/{name}" in [each.path for each in listed]

    def write_trial_files(self, key: str, folder: str, files: Iterable[Path]) -> None:
        """Store files as artifacts of a trial's run, the first of them last: whoever sees it sees all."""
        for path in reversed(list(files)):
            self.client.log_artifact(self._trials[key], str(path), folder)

    def _write(self, group: Group, content: RunContent) -> None:
        """Write the content of a run. One that has shown something else is replaced, and what is nested in it moved.

        MLflow keeps every value that a metric ever had, and lets no parameter change.
        """
        if self._digests.get(group) == content.digest:
            self._ended.add(group)
            return
        earlier = self._groups.pop(group, None) if group in self._digests else None
        run, ended = self._group(group, content), milliseconds(content.ended)
        metrics = [Metric(name, value, ended, 0) for name, value in content.metrics.items()]
        for name, points in content.series.items():
            metrics += [Metric(name, value, ended, step) for step, value in points]
        self._digests[group] = ""  # until all of it is there
        self._log(run, metrics, content.params)
        tags = {**content.tags, VERSION: content.digest}
        self.client.log_batch(run, tags=[RunTag(name, text) for name, text in tags.items()])
        self._digests[group] = content.digest
        self.client.set_terminated(run, "FINISHED", ended)
        self._ended.add(group)
        if earlier is not None:
            for nested in [known for known, parent in self._parents.items() if parent == earlier]:
                self._nest(nested, run)
            self._delete(earlier)

    def _read_known(self) -> None:
        """Read what MLflow has: the runs of study and cells, and the version of every complete trial by key."""
        self._forget()
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment],
                f"tags.`{STUDY}` = '{self.study_id}'",
                max_results=5000,
                page_token=token,
            )
            for run in page:
                self._note(run.info, run.data.tags, run.data.params)
            token = page.token
            if not token:
                return

    def _note(self, info: Any, tags: Mapping[str, str], params: Mapping[str, str]) -> None:
        if GROUP in tags:
            group = tuple(tags[GROUP].split("|"))
            if group in self._groups:  # one of them was to replace the other
                if VERSION not in tags:
                    self.client.delete_run(info.run_id)
                    return
                self._delete(self._groups[group])
            self._groups[group] = info.run_id
            if VERSION in tags or params:  # without a digest it was cut short
                self._digests[group] = tags.get(VERSION, "")
        elif KEY not in tags:
            return
        elif info.status == "RUNNING" or tags[KEY] in self._versions:
            self.client.delete_run(info.run_id)  # cut short, or sent twice
            return
        else:
            self._versions[tags[KEY]] = info.end_time, tags.get(VERSION, "")
            self._trials[tags[KEY]] = info.run_id
        self._parents[info.run_id] = tags.get(PARENT, "")

    def _place(self, current: Mapping[str, TrialRecord]) -> None:
        """Nest trials in their cells, those that no longer belong to the study in a run of their own, and these in its run."""
        for key, run in self._trials.items():
            parent = self._cell(current[key]) if key in current else self._group(EARLIER)
            self._nest(run, parent)
        nested = set(self._parents.values())
        for group, run in list(self._groups.items()):
            if group[0] == "cell" and run not in nested:  # the study has it no more
                self._delete(run)
                del self._groups[group]
                self._digests.pop(group, None)
            elif group != WHOLE:
                self._nest(run, self._groups[WHOLE])

    def _nest(self, run: str, parent: str) -> None:
        if self._parents[run] != parent:
            self.client.set_tag(run, PARENT, parent)
            self._parents[run] = parent

    def _delete(self, run: str) -> None:
        self.client.delete_run(run)
        self._parents.pop(run, None)

    def _cell(self, record: TrialRecord) -> str:
        """Return the run of a record's cell."""
        named = {"alias_of": record.alias_of} if record.alias_of else {}
        content = RunContent(f"{record.forget} {record.method}", named, started=record.started)
        return self._group(("cell", record.forget, record.method), content)

    def _group(self, group: Group, content: RunContent | None = None) -> str:
        """Return the run of a group; start it, and the study's, where there is none."""
        if group not in self._groups:
            names = {WHOLE: self.study, EARLIER: "earlier trials"}
            level = group[0]
            tags = {LEVEL: level, GROUP: "|".join(group), **self._shared()}
            if group == WHOLE:
                tags |= self.facts
            if level == "cell":
                tags |= {"forget": group[1], "method": group[2]}
            tags |= content.tags if content else {}
            if group != WHOLE:
                tags[PARENT] = self._group(WHOLE, content)
            run = self.client.create_run(
                self.experiment,
                start_time=milliseconds(content.started if content else 0.0),
                run_name=names.get(group) or (content.name if content else " ".join(group[1:])),
                tags=tags,
            )
            self._groups[group] = run.info.run_id
            self._parents[run.info.run_id] = tags.get(PARENT, "")
        return self._groups[group]

    def _shared(self) -> dict[str, str]:
        shared = {name: self.facts[name] for name in ("data", "model") if name in self.facts}
        return {STUDY: self.study_id, "study": self.study, **shared}

    def _log(self, run: str, metrics: list[Metric], params: Mapping[str, object]) -> None:
        listed = [Param(name, str(value)) for name, value in params.items()][:MAX_PARAMS]
        for start in range(0, max(1, len(metrics)), MAX_METRICS):
            batch = metrics[start : start + MAX_METRICS]
            self.client.log_batch(run, batch, [] if start else listed)

    def _write_view(self) -> None:
        """Let the UI open the study's runs as a table of cells; without it they are a plain list."""
        name, state = view_tag(self.study, self.study_id)
        try:
            if self.client.get_experiment(self.experiment).tags.get(name) != state:
                self.client.set_experiment_tag(self.experiment, name, state)
        except Exception as error:
            logger.warning("MLflow: the view of the study could not be stored: %s", error)


def find_pages(uri: str, name: str, study_id: str) -> dict[str, str]:
    """Return the addresses of a study in the UI, as ``Tracker.pages``; none where MLflow does not know the study."""
    client = connect(uri)
    experiment = client.get_experiment_by_name(name)
    if experiment is None:
        return {}
    number = experiment.experiment_id
    wanted = f"tags.`{STUDY}` = '{study_id}' and tags.`{LEVEL}` = '{WHOLE[0]}'"
    runs = client.search_runs([number], wanted, max_results=1)
    return _pages(number, study_id, runs[0].info.run_id) if runs else {}


def _pages(experiment: str, study_id: str, run: str | None) -> dict[str, str]:
    pages = {
        "runs": runs_page(experiment, study_id),
        "charts": runs_page(experiment, study_id, charts=True),
    }
    return {**pages, "study": run_page(experiment, run)} if run else pages
