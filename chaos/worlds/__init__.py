"""The exchanges that experiments are done to."""
