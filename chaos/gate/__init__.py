"""Runs suites of experiments for a pipeline, and tells it what they have come to."""
