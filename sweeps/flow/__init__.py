"""The flow of a study from its first job to its last: which can start, what they leave, and what the next ones need of it.

``sweep`` joins the parts. ``references``, ``splits`` and ``audit`` make the jobs that are not trials, and ``ledger`` takes all results.
"""
