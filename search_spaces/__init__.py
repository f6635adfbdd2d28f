"""Search spaces: one YAML per method, one range per knob worth tuning.

Each key is a knob of the method; its value is ``{low, high}`` (add ``log: true`` or ``step``), or
``{choices: [...]}``, optionally with ``when: {other_knob: value}`` for a knob that matters only then (the other
knob comes first, or has this default). Whether a range is of whole numbers follows from the knob. Knobs without a range keep their
default, as `epochs` does where an epoch passes over D_r: how long a method runs is a variable of the study, not tuned.
"""
