"""``trials.jsonl`` and the summary beside it -> ``RecordedStudy``: what was asked for, and the runs of every cell that count."""

from reports.load.assemble import assemble, read, with_audits
from reports.load.study import EPOCHS, RecordedMethod, RecordedRequest, RecordedStudy, Runs, mapping

__all__ = ["EPOCHS", "RecordedMethod", "RecordedRequest", "RecordedStudy", "Runs", "assemble", "mapping", "read", "with_audits"]  # fmt: skip
