"""The commands of ``musweep``: a module for each group adds their arguments and calls what they name."""
