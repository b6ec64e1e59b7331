"""Links between clients and gateways, through the lab's proxies: late, narrow, cut in one direction, reset."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from chaos.faults.injection import FaultNotInjected, Wish
from chaos.worlds.lab import Lab
from chaos.worlds.proxy import Direction, Proxy, Toxic

EFFECT_S_MAX = 10.0
POLL_S = 0.02
ROLE = "gateway"
"""All of them."""


class LatencyArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    latency_ms: Annotated[float, Meta(ge=0.0, le=60_000.0)]
    jitter_ms: Annotated[float, Meta(ge=0.0, le=60_000.0)] = 0.0
    direction: Direction = "both"


class BandwidthArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes_per_s: Annotated[float, Meta(gt=0.0)]
    direction: Direction = "both"


class BlackholeArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    direction: Direction = "both"
    """`down`: requests get through, answers do not."""


class ToxicLink:
    """Something is done to all that passes."""

    def __init__(self, target: str, proxies: Sequence[Proxy], toxic: Toxic, what: str) -> None:
        self._proxies = proxies
        self._toxic = toxic
        self._what = what
        self._before = (0, 0)
        self.target = target

    def _touched(self) -> tuple[int, int]:
        held = sum(proxy.held_bytes for proxy in self._proxies)
        return held, sum(proxy.delayed_chunks for proxy in self._proxies)

    async def inject(self) -> None:
        self._before = self._touched()
        for proxy in self._proxies:
            proxy.add(self._toxic)

    async def proof(self) -> str:
        """Wait until something was held or delayed; a narrow link shows nothing but its width."""
        if self._toxic.bytes_per_s is not None:
            return self._what
        try:
            async with asyncio.timeout(EFFECT_S_MAX):
                while (touched := self._touched()) == self._before:
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise FaultNotInjected(f"expected something to pass within {EFFECT_S_MAX:g} s, found nothing") from error
        held, delayed = (now - before for now, before in zip(touched, self._before, strict=True))
        return f"{self._what}: " + (f"{held:,} bytes held at once" if held else f"{delayed:,} pieces delayed at once")

    async def rollback(self) -> None:
        for proxy in self._proxies:
            proxy.remove(self._toxic)


class ResetConnections:
    """All connections are reset at once: their clients come back all at once."""

    def __init__(self, target: str, proxies: Sequence[Proxy]) -> None:
        self._proxies = proxies
        self._count = 0
        self.target = target

    async def inject(self) -> None:
        self._count = sum(proxy.reset() for proxy in self._proxies)

    async def proof(self) -> str:
        if not self._count:
            raise FaultNotInjected("expected connections to reset, found none")
        return f"{self._count} connections were reset"

    async def rollback(self) -> None:
        """Clients come back by themselves."""


def latency(lab: Lab, wish: Wish, arguments: LatencyArguments) -> ToxicLink:
    toxic = Toxic(arguments.direction, arguments.latency_ms, arguments.jitter_ms)
    what = f"{arguments.latency_ms:g} ± {arguments.jitter_ms:g} ms, {arguments.direction}"
    return ToxicLink(wish.target, _proxies(lab.proxies, wish), toxic, what)


def bandwidth(lab: Lab, wish: Wish, arguments: BandwidthArguments) -> ToxicLink:
    toxic = Toxic(arguments.direction, bytes_per_s=arguments.bytes_per_s)
    return ToxicLink(wish.target, _proxies(lab.proxies, wish), toxic, f"{arguments.bytes_per_s:,.0f} bytes/s")


def blackhole(lab: Lab, wish: Wish, arguments: BlackholeArguments) -> ToxicLink:
    toxic = Toxic(arguments.direction, is_cut=True)
    return ToxicLink(wish.target, _proxies(lab.proxies, wish), toxic, f"nothing passes {arguments.direction}")


def reset_connections(lab: Lab, wish: Wish, arguments: object) -> ResetConnections:
    return ResetConnections(wish.target, _proxies(lab.proxies, wish))


def _proxies(proxies: Mapping[str, Proxy], wish: Wish) -> list[Proxy]:
    if not proxies:
        raise FaultNotInjected("expected clients that go through proxies (`links: proxied`), found none")
    if wish.target == ROLE:
        return list(proxies.values())
    if wish.target not in proxies:
        raise FaultNotInjected(f"expected {ROLE} or one of {', '.join(proxies)}, was {wish.target!r}")
    return [proxies[wish.target]]
