"""State on disk: results, models, costs; and the secrets that nothing may show."""
