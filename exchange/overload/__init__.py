"""How overload is met: decisions as functions of values and an injected clock. `docs/overload.md` tells the story."""
