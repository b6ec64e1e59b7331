"""What is sent, by whom and when, as data: a JSON file that every process of a load reads."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterator
from decimal import Decimal
from itertools import islice
from pathlib import Path
from random import Random
from typing import Literal

import msgspec

from chaos.load.arrivals import PROCESSES, Phase, arrivals
from exchange.client import Instrument

Behaviour = Literal["makers", "takers", "arbitrageurs", "crowd", "flow", "replay"]
Retry = Literal["none", "backoff", "budget", "naive", "ignores-pushback"]
RAMP_STEP_S = 0.5
HASHED_REQUESTS_MAX = 100_000
"""Of a schedule that goes on for hours the begin tells it from another."""


class _Part(msgspec.Struct, frozen=True, kw_only=True):
    pass


class Market(_Part, frozen=True, kw_only=True):
    """Prices and quantities as on the wire: integers at the instrument's scales."""

    symbol: str
    shard: str
    price: int
    """That orders are laid around."""
    tick: int
    quantity: int
    """Of one order; others have a few times as much."""
    price_scale: int
    quantity_scale: int


def market_of(instrument: Instrument, shard: str, price: Decimal) -> Market:
    """Return an instrument as its load sees it; orders are laid around `price`, or the tick below it."""
    tick = int(instrument.tick_size.scaleb(instrument.price_scale))
    scaled = int(price.scaleb(instrument.price_scale))
    return Market(
        symbol=instrument.symbol,
        shard=shard,
        price=scaled - scaled % tick,
        tick=tick,
        quantity=int(instrument.min_quantity.scaleb(instrument.quantity_scale)),
        price_scale=instrument.price_scale,
        quantity_scale=instrument.quantity_scale,
    )


class Client(_Part, frozen=True, kw_only=True):
    name: str
    account: int
    key: str


class Group(_Part, frozen=True, kw_only=True):
    """Clients that behave alike; `per_s` is of all of them together at a load of 1."""

    name: str
    behaviour: Behaviour
    per_s: float
    clients: tuple[Client, ...]
    markets: tuple[str, ...]
    process: Literal["constant", "poisson", "hawkes"] = "poisson"
    retry: Retry = "budget"
    transport: Literal["unary", "session"] = "unary"
    deadline_ms: int = 1_000
    recording: str = ""
    """Of `replay`: a file."""


class Span(_Part, frozen=True, kw_only=True):
    """A part of the time: how many times its `per_s` each group sends, at its begin and at its end."""

    duration_s: float
    factor: float = 1.0
    factor_to: float | None = None
    """None: as at the begin."""
    factors: dict[str, float] = {}
    """Of single groups by their names, in place of `factor`."""
    factors_to: dict[str, float] | None = None
    """Likewise at the end."""


class LoadPlan(_Part, frozen=True, kw_only=True):
    seed: int
    addresses: tuple[str, ...]
    markets: tuple[Market, ...]
    groups: tuple[Group, ...]
    spans: tuple[Span, ...]
    is_logged: bool = True
    """Whether clients write down what they do and are told, and listen to executions and books."""

    @property
    def duration_s(self) -> float:
        return sum(span.duration_s for span in self.spans)

    @property
    def clients(self) -> list[tuple[Group, Client]]:
        return [(group, client) for group in self.groups for client in group.clients]

    @property
    def schedule_sha256(self) -> str:
        """Of what is sent and when: addresses, accounts and keys do not count.

        What a client sends follows from the seed, its name, its behaviour and its recording.
        """
        digest = hashlib.sha256()
        for group in self.groups:
            settings = group.behaviour, group.retry, group.transport, group.deadline_ms, group.markets
            names = [client.name for client in group.clients]
            digest.update(repr((self.seed, group.name, names, *settings)).encode())
            if group.recording:
                digest.update(Path(group.recording).read_bytes())
        for at_s, client in islice(self.schedule(), HASHED_REQUESTS_MAX):
            digest.update(f"{at_s:.9f} {client}\n".encode())
        return digest.hexdigest()

    def schedule(self, worker: int = 0, workers: int = 1) -> Iterator[tuple[float, int]]:
        """Yield when a request is due (s since the load began) and which of `clients` sends it, in order of time.

        Of several workers each has every so-manieth client, so that together they send the same as one would.
        """
        numbers = range(worker, len(self.clients), workers)
        return heapq.merge(*(self._times_of(number) for number in numbers))

    def _times_of(self, number: int) -> Iterator[tuple[float, int]]:
        group, _ = self.clients[number]
        per_s = group.per_s / len(group.clients)
        phases = [phase for span in self.spans for phase in _phases_of(span, group.name, per_s)]
        random = Random(f"{self.seed}-{group.name}-{number}")
        first = random.random() if group.process == "constant" else 0.0

        def process(random: Random) -> Iterator[float]:
            # Clients that send at equal intervals do not all send at once.
            return (at - first for at in PROCESSES[group.process](random))

        return ((at_s, number) for at_s in arrivals(process, phases, random))

    def write(self, path: Path) -> None:
        path.write_bytes(msgspec.json.encode(self))

    @staticmethod
    def read(path: Path) -> LoadPlan:
        return msgspec.json.decode(path.read_bytes(), type=LoadPlan)


def _phases_of(span: Span, group: str, per_s: float) -> Iterator[Phase]:
    begin = span.factors.get(group, span.factor)
    end = begin if span.factor_to is None else span.factor_to
    if span.factors_to is not None:
        end = span.factors_to.get(group, 1.0)
    if begin == end:
        yield Phase(span.duration_s, begin * per_s)
        return
    steps = max(round(span.duration_s / RAMP_STEP_S), 1)
    for step in range(steps):
        factor = begin + (end - begin) * (step + 0.5) / steps
        yield Phase(span.duration_s / steps, factor * per_s)
