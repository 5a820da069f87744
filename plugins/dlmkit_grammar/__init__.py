"""A toy language whose every probability is known, as data and as a metric without a judge."""
