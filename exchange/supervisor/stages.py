"""In which stage a shard begins."""

from __future__ import annotations

from exchange.engine.commands import SetStage
from exchange.engine.control import HoldStage
from exchange.engine.words import Stage


class OpenAtOnce:
    """The policy of a shard that starts: it opens, unless it is held."""

    def first_stage(self, held: HoldStage | None) -> SetStage:
        """Return the command that follows the shard's instruments."""
        if held is not None:
            return SetStage(held.stage, held.orders_per_s, held.reason)
        return SetStage(int(Stage.OPEN), 0, "start")
