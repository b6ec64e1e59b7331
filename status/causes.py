"""What the supervisor's events say of a cause, in words for the public: no process, host or node is named. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from exchange.client import Event
from status.levels import FUNDS, gateway_id, market_data_id, trading_id

LOSSES = frozenset({"lost", "parked", "gave_up"})
_TELLING = LOSSES | {"taking_over", "fenced", "by_hand", "stage"}
_WORDS = {
    "lost": "was lost",
    "parked": "was lost again and again, and is held down until an operator has looked",
    "gave_up": "was overloaded whenever it reopened, and waits for an operator",
    "taking_over": "was lost, and its standby takes over",
    "fenced": "was lost, and its standby has taken over",
    "by_hand": "was set by an operator",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Which components of the public rest on which part of the exchange."""

    instruments: Mapping[str, tuple[str, ...]]
    """By shard."""
    gateways: Mapping[str, int]
    """By the supervisor's name of a gateway: its place in the settings."""

    @property
    def everything(self) -> tuple[str, ...]:
        """All components that rest on any part."""
        parts = (*self.gateways, "ledger", *self.instruments)
        return tuple(dict.fromkeys(name for part in parts for name in self.components_of(part)))

    def components_of(self, part: str) -> tuple[str, ...]:
        if part == "ledger":
            return (FUNDS,)
        if part in self.gateways:
            return (gateway_id(self.gateways[part]),)
        symbols = self.instruments.get(part, (part,) if any(part in s for s in self.instruments.values()) else ())
        return tuple(name for symbol in symbols for name in (trading_id(symbol), market_data_id(symbol)))

    def words_for(self, part: str) -> str:
        if part == "ledger":
            return "the ledger of all funds"
        if part in self.gateways:
            return f"API gateway {self.gateways[part]}"
        symbols = self.instruments.get(part, (part,))
        return f"the engine of {', '.join(symbols)}" if symbols else "an engine"


def cause_of(events: Iterable[Event], components: Iterable[str], plan: Plan) -> str:
    """Return what the events say of why these components fail; empty if they say nothing of it."""
    affected = frozenset(components)
    kinds: dict[str, str] = {}
    for event in events:
        if event.kind not in _TELLING or event.kind == "stage":
            continue
        if affected.intersection(plan.components_of(event.component)):
            # What comes later says more: lost, then taken over. Only a person's hand is said as it is.
            kinds[event.component] = event.kind
    if not kinds:
        return ""
    parts = [f"{plan.words_for(part)} {_WORDS[kind]}" for part, kind in kinds.items()]
    text = "; ".join(parts)
    return f"{text[0].upper()}{text[1:]}."
