"""Many annotations of a large file at once, as columns."""
