"""Study files that ship with musweep; ``musweep run demo`` finds them by name."""
