"""What a study will run: its cells and seeds without its data (``outline``), its jobs with them (``jobs``), and the line that records begin with."""

from sweeps.plan.jobs import FirstKnobs, Job, Plan

__all__ = ["FirstKnobs", "Job", "Plan"]
