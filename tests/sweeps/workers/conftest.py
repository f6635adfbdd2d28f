"""A searcher over three jobs, of which two may run at once."""

from __future__ import annotations

import pytest
from job_source import Source, TwoSlots

from sweeps.workers.job_searcher import JobSearcher


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def searcher(source: Source) -> JobSearcher:
    return JobSearcher(source, TwoSlots(), timeout_seconds=5)
