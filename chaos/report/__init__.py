"""What a run has left, as people read it: a page, a comparison, and the draft of an incident report."""
