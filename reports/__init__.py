"""Reports of a study, made from its recorded results alone: no model, cluster or tracking server is asked.

load            ``trials.jsonl`` -> ``RecordedStudy``: what was asked for, and the runs of every cell that count
statistics      the arithmetic: plain functions of numbers
analysis        what cells come to, robustness, pairs, budgets, importance, and how knobs were chosen
frames          runs, methods, trials and curves as pandas frames
text            how numbers and names are printed
tables          the tables of the report, and their files
charts          its figures, as Altair specifications
contents        every table and figure that a study has
page            ``build``: the page, with tables and figures beside it
compare         the same over several studies
terminal        the methods table for the terminal

Run as ``python -m reports results/<study>``. Definitions are in ``docs/statistics.md``. Nothing is imported here.
"""
