"""Looks at the exchange from outside, as a client does, and listens to what its supervisor says."""
