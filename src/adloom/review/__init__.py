"""Rules over finished copy, kept as data: each verdict names rule, span and reason."""
