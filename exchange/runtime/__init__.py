"""How a machine lives: what makes it durable, recovers it, keeps a standby and feeds its events."""
