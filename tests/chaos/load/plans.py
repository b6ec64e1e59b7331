"""Plans of load for tests."""

from typing import Any

from chaos.load.echo import MARKET
from chaos.load.plan import Client, Group, LoadPlan, Span


def group_of(clients: int = 3, **fields: Any) -> Group:
    made = tuple(Client(name=f"c-{number}", account=number + 1, key="key") for number in range(clients))
    return Group(
        **{"name": "g", "behaviour": "flow", "per_s": 60.0, "clients": made, "markets": (MARKET.symbol,), **fields}
    )


def plan_of(*groups: Group, address: str = "127.0.0.1:1", duration_s: float = 2.0, **fields: Any) -> LoadPlan:
    return LoadPlan(
        **{
            "seed": 1,
            "addresses": (address,),
            "markets": (MARKET,),
            "groups": groups or (group_of(),),
            "spans": (Span(duration_s=duration_s),),
            **fields,
        }
    )
