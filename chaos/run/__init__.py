"""A run of an experiment, and what it leaves: a directory that every report and every later check reads."""
