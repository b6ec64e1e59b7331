"""Links between clients and gateways, through the lab's proxies: late, narrow, cut in one direction, reset."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Annotated

import msgspec
from msgspec import Meta

from chaos.faults.injection import FaultNotInjected, TargetUnknown, Wish
from chaos.worlds.lab import Lab
from chaos.worlds.proxy import Direction, Proxy, Toxic

EFFECT_S_MAX = 10.0
POLL_S = 0.02
NONSENSE = b"\r\n" * 100
ROLE = "gateway"
"""All of them."""


class LatencyArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    latency_ms: Annotated[float, Meta(ge=0.0, le=60_000.0)]
    jitter_ms: Annotated[float, Meta(ge=0.0, le=60_000.0)] = 0.0
    direction: Direction = "both"


class BandwidthArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    bytes_per_s: Annotated[float, Meta(gt=0.0)]
    direction: Direction = "both"


class LossArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    loss: Annotated[float, Meta(gt=0.0, le=0.9)]
    """The share of pieces that is lost; TCP sends them again after 200 ms, and after twice as long each time."""
    direction: Direction = "both"


class SlowCloseArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    close_ms: Annotated[float, Meta(gt=0.0, le=60_000.0)]
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
        """Wait until something that passed was held or delayed."""
        try:
            async with asyncio.timeout(EFFECT_S_MAX):
                while (touched := self._touched()) == self._before:
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise FaultNotInjected(
                f"expected something to pass {self.target} within {EFFECT_S_MAX:g} s, found nothing: is there a load?"
            ) from error
        held, delayed = (now - before for now, before in zip(touched, self._before, strict=True))
        return f"{self._what}: " + (f"{held:,} bytes held at once" if held else f"{delayed:,} pieces delayed at once")

    async def rollback(self) -> None:
        for proxy in self._proxies:
            proxy.remove(self._toxic)


class SlowClose:
    """Who closes a connection is heard late at the other end."""

    def __init__(self, target: str, proxies: Sequence[Proxy], arguments: SlowCloseArguments) -> None:
        self._proxies = proxies
        self._toxic = Toxic(arguments.direction, close_ms=arguments.close_ms)
        self.target = target

    async def inject(self) -> None:
        for proxy in self._proxies:
            proxy.add(self._toxic)

    async def proof(self) -> str:
        """Close a connection of our own, and wait until the other end hears of it late."""
        proxy = self._proxies[0]
        before = proxy.late_closes
        host, _, port = proxy.address.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        if self._toxic.applies("up"):
            writer.close()
        else:
            # What no gateway understands it answers by closing.
            writer.write(NONSENSE)
        try:
            async with asyncio.timeout(EFFECT_S_MAX):
                while proxy.late_closes == before:
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise FaultNotInjected(f"expected a connection to {self.target} to be closed late, it was not") from error
        finally:
            writer.close()
        return f"a connection of ours is closed {self._toxic.close_ms:g} ms late"

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


def loss(lab: Lab, wish: Wish, arguments: LossArguments) -> ToxicLink:
    toxic = Toxic(arguments.direction, loss=arguments.loss)
    what = f"{arguments.loss:.0%} of pieces are lost and sent again, {arguments.direction}"
    return ToxicLink(wish.target, _proxies(lab.proxies, wish), toxic, what)


def slow_close(lab: Lab, wish: Wish, arguments: SlowCloseArguments) -> SlowClose:
    return SlowClose(wish.target, _proxies(lab.proxies, wish), arguments)


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
        raise TargetUnknown(f"expected {ROLE} or one of {', '.join(proxies)}, was {wish.target!r}")
    return [proxies[wish.target]]
