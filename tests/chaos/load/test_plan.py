"""The same seed sends the same, in one process or in several; shapes are what their names say."""

from itertools import pairwise
from pathlib import Path
from random import Random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chaos.load.behaviours import Query, make_client
from chaos.load.echo import MARKET
from chaos.load.plan import LoadPlan, Span
from chaos.load.shapes import SHAPES
from tests.chaos.load.plans import group_of, plan_of

spans = st.builds(
    Span, duration_s=st.floats(0.2, 3.0), factor=st.floats(0.0, 2.0), factor_to=st.none() | st.floats(0.0, 2.0)
)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(["constant", "poisson", "hawkes"]),
    st.lists(spans, min_size=1, max_size=3),
    st.integers(0, 9),
    st.integers(1, 5),
    st.integers(1, 4),
)
def test_workers_together_send_what_one_would(
    process: str, parts: list[Span], seed: int, clients: int, workers: int
) -> None:
    plan = plan_of(group_of(clients, process=process), spans=tuple(parts), seed=seed)
    alone = list(plan.schedule())
    together = sorted(request for worker in range(workers) for request in plan.schedule(worker, workers))
    assert sorted(alone) == together
    assert all(a[0] <= b[0] for a, b in pairwise(alone))
    assert all(0 <= at_s <= plan.duration_s + 1e-9 for at_s, _ in alone)


def test_the_hash_of_a_schedule_tells_seeds_and_rates_apart_but_not_addresses() -> None:
    plan = plan_of()
    same = msgspec.structs.replace(plan, addresses=("elsewhere:1",))
    others = [
        msgspec.structs.replace(plan, seed=2),
        plan_of(group_of(per_s=61.0)),
        plan_of(group_of(behaviour="makers")),
    ]
    assert same.schedule_sha256 == plan.schedule_sha256
    assert len({plan.schedule_sha256, *(other.schedule_sha256 for other in others)}) == 4


def test_the_hash_depends_on_what_a_recording_holds(tmp_path: Path) -> None:
    recording = tmp_path / "flow.csv"
    hashes = []
    for price in (100, 101):
        recording.write_text(f"seq,cmd,id,side,price,qty,tif\n1,NEW,1,B,{price},1,GTC\n")
        hashes.append(plan_of(group_of(behaviour="replay", recording=str(recording))).schedule_sha256)
    assert hashes[0] != hashes[1]


def test_a_plan_comes_back_from_its_file_as_it_was(tmp_path: Path) -> None:
    plan = plan_of(group_of(retry="naive", transport="session"))
    plan.write(tmp_path / "plan.json")
    assert LoadPlan.read(tmp_path / "plan.json") == plan


@pytest.mark.parametrize("behaviour", ["makers", "takers", "arbitrageurs", "crowd", "flow"])
def test_what_a_client_sends_follows_from_the_seed_alone(behaviour: str) -> None:
    group = group_of(1, behaviour=behaviour)
    other = msgspec.structs.replace(MARKET, symbol="ETH-USDT")
    sent = []
    for seed in (1, 1, 2):
        client = make_client(group, 0, (MARKET, other), Random(seed))
        requests = [client.next() for _ in range(200)]
        sent.append([r if isinstance(r, Query) else r.SerializeToString() for r in requests])
    assert sent[0] == sent[1]
    assert sent[0] != sent[2]


def test_a_recorded_flow_is_sent_in_its_order_and_then_again_under_new_names(tmp_path: Path) -> None:
    recording = tmp_path / "flow.csv"
    recording.write_text(
        "seq,cmd,id,side,price,qty,tif\n1,NEW,7,B,100,2,GTC\n2,REPLACE,7,,103,1,\n3,CANCEL,7,,,,\n4,MARKET,8,S,,3,\n"
    )
    client = make_client(group_of(1, behaviour="replay", recording=str(recording)), 0, (MARKET,), Random(1))
    commands = [client.next() for _ in range(5)]
    kinds = [command.WhichOneof("command") for command in commands if not isinstance(command, Query)]
    assert kinds == ["place", "amend", "cancel", "place", "place"]
    first, amended, again = commands[0], commands[1], commands[4]
    assert not isinstance(first, Query)
    assert not isinstance(amended, Query)
    assert not isinstance(again, Query)
    assert amended.amend.price == first.place.price + 3 * MARKET.tick
    assert amended.amend.client_order_id == first.place.client_order_id != again.place.client_order_id


@pytest.mark.parametrize("name", sorted(SHAPES))
def test_a_shape_lasts_as_long_as_it_is_asked_to(name: str) -> None:
    assert sum(span.duration_s for span in SHAPES[name](60.0)) == pytest.approx(60.0)


def test_a_spike_has_five_times_the_rate_in_its_middle() -> None:
    plan = plan_of(group_of(process="constant", per_s=100.0), spans=SHAPES["spike"](10.0))
    times = [at_s for at_s, _ in plan.schedule()]
    before, during = sum(at_s < 4.0 for at_s in times), sum(4.0 <= at_s < 6.0 for at_s in times)
    assert before == pytest.approx(400, abs=5)
    assert during == pytest.approx(1_000, abs=5)
