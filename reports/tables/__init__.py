"""Tables: what one is, those of the report, and their files."""
