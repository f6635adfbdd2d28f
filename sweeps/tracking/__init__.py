"""What can be watched: MLflow, progress on the terminal, ``musweep status``, notifications."""
