"""How each hop meets more work than it can do: small objects that decide, with the clock passed in."""
