"""What the records of a study come to: cells, robustness, pairs, budgets, importance, and how knobs were chosen."""
