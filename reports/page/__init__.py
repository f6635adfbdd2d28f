"""The page of a report: one file that needs nothing beside itself, and the tables and figures beside it.

report      ``build``: writes the report
cards       what was found, in sentences
words       what was run, how to read it, what did not finish, the glossary
embedded    the data of the page as JSON
"""

from reports.page.report import build

__all__ = ["build"]
