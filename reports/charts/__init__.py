"""Charts as Altair specifications, from which the page, SVG, PNG and PDF are made alike.

``figure`` has what they share, ``results`` and ``search`` one function for each chart.
"""
