"""The pure core: deterministic state machines without I/O, clock, randomness, Ray or protobuf."""

from exchange.compiled import check_sources

check_sources()
