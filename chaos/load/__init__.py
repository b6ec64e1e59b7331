"""Open-loop load: what is sent, and when, is decided beforehand, so that a slow exchange does not slow the load."""
