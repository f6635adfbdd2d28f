"""Reports of a study, made from its recorded results alone: no model, cluster or tracking server is asked.

load      ``trials.jsonl`` -> ``Study``: what was asked for, and the current runs of every cell
stats     mean and spread over seeds, noise floor
outcomes  what a cell comes to: metrics, gaps to the retrained models, and why there is none
tables    tables as data, in the format of NatMU's
formats   the same as CSV, Markdown and LaTeX, and ``results.csv``
figures   one function per figure
findings  the plain summary, by simple rules
sections  the parts of the page
markup    escaped HTML, and the style sheet
page      ``build``: assembles and writes the report

Run as ``python -m reports results/<study>``. Nothing is imported here.
"""
