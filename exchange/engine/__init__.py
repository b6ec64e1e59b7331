"""The pure core: deterministic state machines without I/O, clock, randomness, Ray or protobuf."""
