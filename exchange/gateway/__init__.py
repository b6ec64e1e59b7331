"""The gateway: gRPC in front of the shards, with its own copy of their books."""
