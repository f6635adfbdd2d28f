"""Reports of a study, made from its recorded results alone: no model, cluster or tracking server is asked.

load                ``trials.jsonl`` -> ``RecordedStudy``: what was asked for, and the current runs of every cell
spaces              the range of every searched knob

stats               spread, intervals, bootstrap, noise floor: numbers about runs
ranks               ranks, exact signed-rank test, Holm, Friedman, Kendall: pure functions
summaries           what a cell comes to: metrics, gaps to the retrained models, or why there is none
comparison          which methods can be told apart, over the same problems
robustness          regret without knobs of its own, the score, rankings kept, slopes of over-forgetting
tuning_check        the expected best of so many trials, and whether they were enough
importance          fANOVA importance of knobs; the only module that asks Optuna

table_cells         what a table is, and how numbers are printed
result_tables       tuned knobs, sufficient training, transfer, every metric, cost
robustness_tables   robustness, default knobs, over-forgetting, transfer matrix
uncertainty         noise floor, pairs of methods, and ``cells.csv``
knob_tables         chosen knobs, other rules of choice, importance
formats             tables as CSV, Markdown and LaTeX, and ``results.csv``

canvas              what figures share
figures             over-forgetting, gaps, transfer, cost
robustness_figures  ranks, transfer matrix
knob_figures        budget, progress, response to the knobs

contents            every table and figure that a study has
findings            the plain summary, by simple rules
sections            the parts of the page that are words
markup              escaped HTML, and the style sheet
layout              the page: its sections, and the place of every table and figure
page                ``build``: writes the report

Run as ``python -m reports results/<study>``. Definitions are in ``docs/statistics.md``. Nothing is imported here.
"""
