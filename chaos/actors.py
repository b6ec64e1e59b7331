"""The Ray shells around an experiment on a cluster: a director, an agent on each node, the load, and who started them.

All else of it is in `chaos/cluster`, which knows nothing of Ray.
"""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import ray
import ray.exceptions
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from chaos.cluster.agents import Agents
from chaos.cluster.hands import Hands, NodeAway, NodeHands, ProtectedProcess
from chaos.cluster.load import LoadPart, Moment, moment, pack_logs
from chaos.cluster.session import run_on_cluster
from chaos.experiment.library import Source, read
from chaos.load.plan import LoadPlan
from chaos.load.seconds import LoadSecond
from chaos.load.workers import LoadFailed, LoadWorkers
from chaos.run.director import Director
from chaos.run.record import Event, Sample, Verdict
from chaos.run.session import Attachment, RunOptions
from chaos.tune.evaluation import Job, evaluate
from chaos.tune.score import Score
from exchange.ray_settings import NODE_LABEL

NAMESPACE = "evenkeel-chaos"
CALL_TIMEOUT_S = 10.0
CPUS_PER_TRIAL = 2
"""An exchange and its load on one core would measure each other."""
_LOST = (ray.exceptions.RayActorError, ray.exceptions.GetTimeoutError, ValueError)


class AgentActor:
    """Carries out faults on its node. `protected`: processes there that the experiment cannot do without."""

    def __init__(self, protected: Sequence[int]) -> None:
        self._hands = NodeHands(protected)

    async def ping(self) -> None:
        pass

    async def signal(self, pid: int, number: int) -> str:
        """Return what is wrong; empty: it is done."""
        try:
            await self._hands.signal(pid, number)
        except ProtectedProcess as error:
            return str(error)
        return ""

    async def state(self, pid: int) -> str:
        return await self._hands.state(pid)

    async def memory_mb(self, pids: Sequence[int]) -> float:
        return await self._hands.memory_mb(pids)

    async def supervisors(self) -> list[int]:
        return await self._hands.supervisors()

    async def end_node(self) -> None:
        await self._hands.end_node()


class RayHands:
    """An agent behind Ray."""

    def __init__(self, node: str, handle: Any) -> None:
        self._node = node
        self._handle = handle

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                return await getattr(self._handle, method).remote(*arguments)
        except (*_LOST, TimeoutError) as error:
            raise NodeAway(f"the agent of {self._node} is gone: {type(error).__name__}") from error

    async def ping(self) -> None:
        await self._call("ping")

    async def signal(self, pid: int, number: int) -> None:
        if refused := await self._call("signal", pid, number):
            raise ProtectedProcess(refused)

    async def state(self, pid: int) -> str:
        state: str = await self._call("state", pid)
        return state

    async def memory_mb(self, pids: Sequence[int]) -> float:
        memory_mb: float = await self._call("memory_mb", list(pids))
        return memory_mb

    async def supervisors(self) -> list[int]:
        pids: list[int] = await self._call("supervisors")
        return pids

    async def end_node(self) -> None:
        await self._call("end_node")


class RayNodes:
    """The cluster that this process is connected to. `run`: of whose experiment the agents are."""

    def __init__(self, run: str, protected: Mapping[str, Sequence[int]]) -> None:
        self._run = run
        self._protected = protected

    async def alive(self) -> Mapping[str, str]:
        return await asyncio.to_thread(alive_nodes)

    async def start_agent(self, name: str, node_id: str) -> Hands:
        actor_name = f"agent-{name}-{node_id[:8]}-{self._run}"
        hands = RayHands(name, _start_on(AgentActor, actor_name, node_id, list(self._protected.get(name, ()))))
        await hands.ping()
        return hands


def _start_on(kind: type, name: str, node_id: str, *arguments: Any) -> Any:
    """Start an actor on a node, and on no other: there it would do its faults to the wrong processes."""
    actor = ray.remote(kind).options(
        name=name,
        namespace=NAMESPACE,
        lifetime="detached",
        num_cpus=0,
        max_restarts=0,
        get_if_exists=True,
        scheduling_strategy=NodeAffinitySchedulingStrategy(node_id, soft=False),
    )
    return actor.remote(*arguments)


def alive_nodes() -> dict[str, str]:
    """Return Ray's id of each node that is there, by its name: its label, else its address."""
    rows = [row for row in ray.nodes() if row["Alive"]]
    return {row["Labels"].get(NODE_LABEL, row["NodeManagerAddress"]): row["NodeID"] for row in rows}


class LoadActor:
    """A process of the load on its node."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="evenkeel-load-"))
        self._workers: LoadWorkers | None = None

    async def start(self, plan: bytes, number: int, of: int) -> str:
        """Return what is wrong; empty: it is ready."""
        decoded = msgspec.json.decode(plan, type=LoadPlan)
        self._workers = LoadWorkers(decoded, self._directory, first=number, of=of)
        try:
            await self._workers.start()
        except LoadFailed as error:
            return str(error)
        return ""

    async def moment(self) -> tuple[str, int]:
        now = moment()
        return now.boot, now.monotonic_ns

    async def begin(self, at_monotonic_ns: int) -> None:
        await self._started.begin(at_monotonic_ns)

    async def next_second(self) -> tuple[bytes, str]:
        """Return a second, nothing if all is over, or what is wrong."""
        try:
            second = await self._started.next_second()
        except LoadFailed as error:
            return b"", str(error)
        return (msgspec.json.encode(second), "") if second is not None else (b"", "")

    async def storm(self, what: str, group: str) -> int:
        return await self._started.storm(what, group)

    async def finish(self) -> bytes:
        await self._started.finish()
        return await asyncio.to_thread(pack_logs, self._directory)

    @property
    def _started(self) -> LoadWorkers:
        assert self._workers is not None, "the load has not started"
        return self._workers


class RayLoadPart:
    """A process of the load behind Ray."""

    def __init__(self, node: str, handle: Any) -> None:
        self._node = node
        self._handle = handle

    async def _call(self, method: str, *arguments: Any) -> Any:
        try:
            return await getattr(self._handle, method).remote(*arguments)
        except _LOST as error:
            raise NodeAway(f"the load on {self._node} is gone: {type(error).__name__}") from error

    async def start(self, plan: LoadPlan, number: int, of: int) -> None:
        if wrong := await self._call("start", msgspec.json.encode(plan), number, of):
            raise LoadFailed(wrong)

    async def moment(self) -> Moment:
        return Moment(*await self._call("moment"))

    async def begin(self, at_monotonic_ns: int) -> None:
        await self._call("begin", at_monotonic_ns)

    async def next_second(self) -> LoadSecond | None:
        encoded, wrong = await self._call("next_second")
        if wrong:
            raise LoadFailed(wrong)
        return msgspec.json.decode(encoded, type=LoadSecond) if encoded else None

    async def storm(self, what: str, group: str) -> int:
        count: int = await self._call("storm", what, group)
        return count

    async def finish(self) -> bytes:
        packed: bytes = await self._call("finish")
        return packed


class DirectorActor:
    """Directs one experiment from its node, and outlives whoever started it. What it leaves is fetched from it."""

    def __init__(self, run: str, here: str, name: str, text: str, changes: Mapping[str, Any]) -> None:
        self._run = run
        self._here = here
        self._directory = Path(tempfile.mkdtemp(prefix="evenkeel-run-"))
        file = self._directory / f"{name}.yaml"
        file.write_text(text, encoding="utf-8")
        self._source: Source = read(file, changes)
        self._events: list[bytes] = []
        self._samples: list[bytes] = []
        self._director: Director | None = None

    def event(self, event: Event) -> None:
        self._events.append(msgspec.json.encode(event))

    def sample(self, sample: Sample) -> None:
        self._samples.append(msgspec.json.encode(sample))

    async def conduct(
        self, seed: int, workers: int, attachment: tuple[tuple[str, ...], str], command: Sequence[str]
    ) -> bytes:
        """Run the experiment; return its verdict."""
        options = RunOptions(
            directory=self._directory / "run",
            seed=seed,
            workers=workers,
            keep_history=False,
            attachment=Attachment(*attachment),
            command=command,
        )
        agents = Agents(RayNodes(self._run, {self._here: [os.getpid()]}))
        verdict = await run_on_cluster(self._source, options, self, agents, self._start_part, self._here, self._holding)
        return msgspec.json.encode(verdict)

    def _start_part(self, node: str, number: int) -> LoadPart:
        return RayLoadPart(node, _start_on(LoadActor, f"load-{number}-{self._run}", alive_nodes()[node]))

    @contextmanager
    def _holding(self, director: Director) -> Iterator[None]:
        self._director = director
        yield
        self._director = None

    async def interrupt(self) -> None:
        if self._director is not None:
            self._director.interrupt()

    async def seen(self, events: int, samples: int) -> tuple[list[bytes], list[bytes]]:
        """Return the events and samples after so many."""
        return self._events[events:], self._samples[samples:]

    async def files(self) -> bytes:
        """Return the directory of the run as a tar archive."""
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w:gz") as archive:
            archive.add(self._directory / "run", arcname=".")
        return packed.getvalue()


class RemoteDirector:
    """A director on a cluster, as who started it sees it."""

    def __init__(self, source: Source, run: str, node: str) -> None:
        self._run = run
        arguments = run, node, source.name, source.text, dict(source.changes)
        self._handle = _start_on(DirectorActor, f"director-{run}", alive_nodes()[node], *arguments)
        self._conducting: Any = None
        self._events = self._samples = 0

    def begin(self, seed: int, workers: int, attachment: Attachment, command: Sequence[str]) -> None:
        attached = attachment.addresses, attachment.operator_key
        self._conducting = self._handle.conduct.remote(seed, workers, attached, list(command))

    async def seen(self) -> tuple[list[Event], list[Sample]]:
        """Return what is new."""
        events, samples = await self._handle.seen.remote(self._events, self._samples)
        self._events += len(events)
        self._samples += len(samples)
        return (
            [msgspec.json.decode(event, type=Event) for event in events],
            [msgspec.json.decode(sample, type=Sample) for sample in samples],
        )

    async def is_over(self, wait_s: float) -> bool:
        done, _ = await asyncio.wait([asyncio.wrap_future(self._conducting.future())], timeout=wait_s)
        return bool(done)

    async def verdict(self) -> Verdict:
        return msgspec.json.decode(await self._conducting, type=Verdict)

    async def interrupt(self) -> None:
        await self._handle.interrupt.remote()

    async def files(self) -> bytes:
        """Return the directory of the run as a tar archive."""
        packed: bytes = await self._handle.files.remote()
        return packed

    def stop(self) -> None:
        """End the director and all agents of the run."""
        for named in ray.util.list_named_actors(all_namespaces=True):
            if named["namespace"] == NAMESPACE and named["name"].endswith(self._run):
                try:
                    ray.kill(ray.get_actor(named["name"], namespace=NAMESPACE))
                except ValueError:
                    # It went with its node.
                    continue


class RayEvaluator:
    """Runs the jobs of a search on the nodes of a cluster, each with `CPUS_PER_TRIAL` cores to itself."""

    def __init__(self, address: str) -> None:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False)
        self._evaluate = ray.remote(num_cpus=CPUS_PER_TRIAL, max_retries=0)(evaluate)

    def run(self, jobs: Sequence[Job]) -> list[Score]:
        scores: list[Score] = ray.get([self._evaluate.remote(job) for job in jobs])
        return scores
