"""The unlearned model in the user's hand: those that a study kept (``export``), and those of ``musweep unlearn``."""
