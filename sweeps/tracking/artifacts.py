"""What MLflow stores as files: report, study file and splits of a study, and the figures of its methods."""

from __future__ import annotations

from pathlib import Path

from reports.charts import search
from reports.load import RecordedStudy


def study_files(folder: Path) -> list[tuple[Path, str]]:
    """Return the files of a study, each with the folder that it has among a run's artifacts."""
    listed = [(folder / "study.yaml", "")] if (folder / "study.yaml").is_file() else []
    for part in ("report", "splits"):
        for path in sorted((folder / part).rglob("*")):
            if path.is_file():
                listed.append((path, path.parent.relative_to(folder).as_posix()))
    return listed


def method_figures(study: RecordedStudy) -> dict[str, dict[str, str]]:
    """Return the figure of each method as SVG, by the name of its file: the objective of its trials against every knob."""
    return {
        figure.method: {f"{figure.name}.svg": figure.svg()}
        for figure in search.knobs(study)
        if figure.name.startswith("response_")  # MLflow draws parallel coordinates itself
    }
