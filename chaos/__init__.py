"""Load, faults and experiments against a real exchange, from outside: all they know is protocol and processes."""
