"""On which node a component is started: a function of what runs where."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from exchange.supervisor.component import Component, Node


def place(
    component: Component,
    components: Iterable[Component],
    nodes: Sequence[Node],
    drained: Collection[str] = (),
    *,
    is_single: bool = False,
) -> Node | None:
    """Return the node for a component, None if there is none for it now. `drained` are names of nodes to leave out.

    `is_single`: the exchange has one node. That one is alive alone says nothing: others may be away.

    A gateway goes where there is none, and if it can where it was, since clients know its address; a standby away from
    its primary, if there is another node; a machine where there are fewest. After a start that failed it is the next
    node's turn.
    """
    others = [c for c in components if c is not component and c.node]
    if component.is_gateway:
        taken = {c.node for c in others if c.is_gateway}
        free = [node for node in nodes if node.id not in taken and node.name not in drained]
        free.sort(key=lambda node: node.id != component.home)
        # On a single machine there may be more gateways than nodes; elsewhere a second one on a node lowers no load.
        return next(iter(free), nodes[0] if is_single and nodes else None)
    candidates = nodes = [node for node in nodes if node.name not in drained]
    if component.is_standby:
        primary = {c.node for c in others if c.machine == component.machine}
        candidates = [node for node in nodes if node.id not in primary] or candidates
    if not candidates:
        return None
    machines = [c.node for c in others if c.machine]
    candidates = sorted(candidates, key=lambda node: machines.count(node.id))
    return candidates[component.failures % len(candidates)]
