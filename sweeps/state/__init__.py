"""What is kept: results, models, costs, and the secrets that must not be shown."""
