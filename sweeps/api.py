"""Studies from Python: ``load_study``, ``run`` and ``Result``, which are names of the package ``sweeps``.

They work in scripts, notebooks and threads: no signal handler is set, and rich shows progress where it is called.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from reports import frames, load
from reports.load import RecordedStudy
from sweeps.errors import StudyError, errors_at

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

    from sweeps.launch import Options
    from sweeps.study.study import Study


@dataclass(frozen=True)
class Result:
    """What a study has come to so far, read from its results folder when it is first asked for.

    Args:
        folder: Its results folder, such as ``results/birds``.
        storage: Where it keeps models.
    """

    folder: Path
    storage: str = "storage"

    def __post_init__(self) -> None:
        object.__setattr__(self, "folder", Path(self.folder).expanduser())

    @cached_property
    def study(self) -> RecordedStudy:
        """The recorded study. Raises StudyError when the folder has no results."""
        with errors_at():
            return load.read(self.folder)

    @property
    def failed(self) -> int:
        """Number of trials that failed."""
        return sum(record.status == "failed" for record in self.study.records)

    def frame(self) -> pd.DataFrame:
        """Return every metric of every run that counts, a row each; see ``reports.frames.runs``."""
        return frames.runs(self.study)

    def trials(self) -> pd.DataFrame:
        """Return a row for each ended trial; see ``reports.frames.trials``."""
        return frames.trials(self.study)

    def summary(self) -> pd.DataFrame:
        """Return a row for each request and method: recovery, AvgGap, seconds and verdicts; see ``reports.frames.methods``."""
        return frames.methods(self.study)

    def best(self, forget: str, method: str) -> dict[str, Any]:
        """Return the knobs that were chosen for a method on a request. Raises StudyError while there are none."""
        chosen = self.study.chosen(forget, method)
        if chosen is None:
            known = ", ".join(f"{f}/{m}" for (f, m), d in self.study.decisions.items() if d.chosen)
            raise StudyError(
                f"{self.study.name}: no knobs were chosen for {forget}/{method}; they were for {known or 'none'}"
            )
        return dict(chosen.knobs)

    def report(self) -> Path:
        """Write the report, and return its page."""
        from reports import page

        return page.build(self.folder)

    def unlearned(
        self,
        forget: str,
        method: str,
        seed: int | None = None,
        *,
        methods_path: Path | None = None,
        code_path: Path | None = None,
    ) -> nn.Module:
        """Return a model that the study kept, in eval mode. It takes pixels in [0, 1], or tokens.

        Args:
            forget: Forget request.
            method: Method, as the study calls it.
            seed: Report seed; None is the first that has finished.
            methods_path: Folder with methods of one's own.
            code_path: Folder with modules of one's own models; any folder for a package that is installed.

        Raises:
            StudyError: It was not kept; the message says how to keep it.
        """
        from sweeps.launch import import_from
        from sweeps.study.study import refuse_code
        from sweeps.unlearned.export import find_kept
        from sweeps.unlearned.rebuild import rebuilt

        if code_path is None:
            refuse_code(self.study.definition.get("model"), self.study.name)
        import_from(code_path)
        kept = find_kept(self.study, forget, method, seed, self.storage)
        return rebuilt(kept, [methods_path] if methods_path is not None else [])


def load_study(
    source: str | Path | Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    methods_path: Path | None = None,
    code_path: Path | None = None,
) -> Study:
    """Read and check a study.

    Args:
        source: Its file, the name of a shipped one, or what its file would hold, as a dict.
        overrides: Parts of it to replace, as ``key.subkey=value``.
        methods_path: Folder with methods of one's own.
        code_path: Folder with modules of one's own models.

    Raises:
        StudyError: Something in it is wrong; the message names file, key, value and what is allowed.
    """
    from sweeps import launch
    from sweeps.study import study, yaml_file

    options = launch.Options(methods_path=methods_path, code_path=code_path, overrides=overrides)
    if not isinstance(source, Mapping):
        return launch.read_study(str(source), options)[0]
    launch.import_from(code_path)
    raw = yaml_file.with_overrides(source, overrides)
    return study.parse(raw, "study", yaml_file.method_folders(methods_path))


def run(
    study: Study | str | Path,
    options: Options | None = None,
    *,
    console: Console | None = None,
    **changes: Any,
) -> Result:
    """Run a study, or what is left of it, and return its results. Its report is written as well.

    Args:
        study: What ``load_study`` returned, or what it takes.
        options: Where results, models and MLflow are, and which cluster runs it; see ``sweeps.Options``.
        console: Where progress is shown; None is the notebook or terminal.
        changes: Fields of `options` by name, such as ``results="results"``.

    Raises:
        StudyError: It cannot be run as asked; nothing has started.
        SweepError: It could not be run to its end; what has ended is kept, and the same call continues.
        KeyboardInterrupt: It was stopped; likewise.
    """
    from sweeps import launch

    asked = replace(options or launch.Options(), **changes)
    asked = replace(asked, results=Path(asked.results), storage=str(asked.storage))
    plan = launch.make_plan(str(study) if isinstance(study, Path) else study, asked)
    shown = Console() if console is None else console
    ended = launch.run(plan, asked, shown, f"sweeps.run of {plan.study.name}")
    return Result(ended.folder, asked.storage)
