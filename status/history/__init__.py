"""What was, in SQLite: days, delays, incidents, maintenance, events. Kept through restarts and upgrades."""
