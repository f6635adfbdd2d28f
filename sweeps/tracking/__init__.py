"""Ways to watch a study: MLflow, progress on the terminal, ``musweep status``, notifications."""
