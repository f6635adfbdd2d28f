"""The search: one Optuna study for each cell, by ask and tell. Nothing else imports Optuna."""
