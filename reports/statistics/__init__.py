"""The arithmetic behind the report: plain functions of numbers, which know nothing of studies or tables.

``docs/statistics.md`` has the definitions, what each of them leaves out, and the error rates of the tests.
"""
