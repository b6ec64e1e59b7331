"""Bugs that are planted in an exchange from outside, to see that the lab finds them: the mutation check."""
