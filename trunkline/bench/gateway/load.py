"""The load: agents that hold conversations through the gateway, on time. Owns schedules and latencies; a process of its own.

    python -m trunkline.bench.gateway.load PLAN RESULT

An open loop: a call's time comes whether or not earlier ones are answered, and its latency counts from that time, so that a
gateway that falls behind cannot hide it (no coordinated omission). One line a hundredth of the calls goes to stdout.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp
import msgspec
import uvloop

from trunkline.bench.gateway.material import TextSource
from trunkline.bench.gateway.talk import WIRES, Talk, completion_id

_REPORTS = 100


class LoadPlan(msgspec.Struct):
    """What to do."""

    port: int
    """The gateway's, for agents."""
    control: str
    """Its socket for operators."""
    corpus: str
    """A file of text."""
    num_sessions: int
    """Agents at once."""
    num_calls: int
    """In all."""
    rate: float | None = None
    """Calls a second, at times of a Poisson process; None: each agent asks as soon as it is answered."""
    wire: str = "chat"
    """One of WIRES."""
    turns: tuple[int, int] = (8, 24)
    """An agent's conversation ends after so many calls, and it begins another one in a new episode."""
    result_tokens: int = 190
    """What a tool returns."""
    seed: int = 1
    """Of texts, lengths and times."""


class LoadResult(msgspec.Struct):
    """What came of it."""

    wall_s: float
    """From the first call's time to the last answer."""
    cpu_s: float
    """Of this process."""
    open_s: list[float]
    """For the first session of each agent: how long its opening took, one after the other."""
    latency_s: dict[str, float]
    """By completion id: from the call's time to its answer, read whole."""
    num_failed: int
    """Calls answered by an error."""
    failure: str
    """The first of them, in words."""


class _Agent:
    """One conversation after the other over one connection."""

    def __init__(self, load: _Load, index: int) -> None:
        self._load = load
        self._text = TextSource(load.text, load.plan.seed * 100_003 + index)
        self._num_opened = 0
        self._index = index
        self._left = 0
        self._talk: Talk
        self._opened: dict[str, str] = {}

    async def open(self) -> None:
        """A new episode."""
        self._num_opened += 1
        self._episode = f"bench-{self._load.plan.seed}-{self._index}-{self._num_opened}"
        opening = {"episode_id": self._episode, "seed": self._index, "budget": {"max_context": 400_000}}
        self._opened = msgspec.json.decode(await self._load.control("POST", "/sessions", msgspec.json.encode(opening)))
        self._talk = WIRES[self._load.plan.wire](self._text.take(150))
        self._left = self._text.turns(*self._load.plan.turns)

    async def call(self, scheduled: float) -> None:
        """The next call; then what follows from its answer, outside of the time that counts."""
        url = f"http://127.0.0.1:{self._load.plan.port}{self._talk.path}"
        headers = {"authorization": f"Bearer {self._opened['secret']}", "content-type": "application/json"}
        async with self._load.http.post(url, data=self._talk.body(), headers=headers) as response:
            answer = await response.read()
        if response.status == 200:
            self._load.latency_s[completion_id(answer)] = time.perf_counter() - scheduled
            self._talk.hear(answer, lambda: self._text.take(self._load.plan.result_tokens))
        else:
            self._load.failures.append(f"{response.status}: {answer[:300]!r}")
        self._load.report()
        self._left -= 1
        if self._left == 0:
            await self.close()
            await self.open()

    async def close(self) -> None:
        """Ends the episode."""
        await self._load.control("POST", f"/episodes/{self._episode}/sessions/{self._opened['session_id']}/end")


class _Load:
    """All agents."""

    def __init__(self, plan: LoadPlan, http: aiohttp.ClientSession, operator: aiohttp.ClientSession) -> None:
        self.plan = plan
        self.http = http
        self.text = Path(plan.corpus).read_text(encoding="ascii")
        self.latency_s: dict[str, float] = {}
        self.failures: list[str] = []
        self._operator = operator

    async def control(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """A request to the operator's socket."""
        async with self._operator.request(method, f"http://gateway{path}", data=body) as response:
            content = await response.read()
            assert response.status < 300, f"{method} {path}: {response.status} {content!r}"
            return content

    def report(self) -> None:
        """A line now and then, for progress and for whoever samples memory."""
        done, step = len(self.latency_s) + len(self.failures), max(1, self.plan.num_calls // _REPORTS)
        if done % step == 0:
            sys.stdout.write(f"{done}\n")
            sys.stdout.flush()

    async def run(self) -> LoadResult:
        """Opens all sessions, makes all calls, ends all episodes."""
        agents, open_s = [_Agent(self, index) for index in range(self.plan.num_sessions)], []
        for agent in agents:
            began = time.perf_counter()
            await agent.open()
            open_s.append(time.perf_counter() - began)
        cpu, began = time.process_time(), time.perf_counter()
        await asyncio.gather(*(self._by_the_clock(agents, began) if self.plan.rate else self._as_fast_as_can_be(agents)))
        wall_s, cpu_s = time.perf_counter() - began, time.process_time() - cpu
        for agent in agents:
            await agent.close()
        failure = self.failures[0] if self.failures else ""
        return LoadResult(wall_s, cpu_s, open_s, self.latency_s, len(self.failures), failure)

    def _by_the_clock(self, agents: list[_Agent], began: float) -> Iterator[asyncio.Task[None]]:
        assert self.plan.rate is not None
        chance, due = random.Random(self.plan.seed), began
        times: list[list[float]] = [[] for _ in agents]
        for index in range(self.plan.num_calls):
            due += chance.expovariate(self.plan.rate)
            times[index % len(agents)].append(due)

        async def keep(agent: _Agent, due_times: list[float]) -> None:
            for due in due_times:
                await asyncio.sleep(due - time.perf_counter())
                await agent.call(due)

        return (asyncio.create_task(keep(agent, due_times)) for agent, due_times in zip(agents, times, strict=True))

    def _as_fast_as_can_be(self, agents: list[_Agent]) -> Iterator[asyncio.Task[None]]:
        left = iter(range(self.plan.num_calls))

        async def keep(agent: _Agent) -> None:
            for _ in left:
                await agent.call(time.perf_counter())

        return (asyncio.create_task(keep(agent)) for agent in agents)


async def _run(plan: LoadPlan) -> LoadResult:
    timeout = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout, trust_env=False) as http,
        aiohttp.ClientSession(connector=aiohttp.UnixConnector(plan.control, limit=8), timeout=timeout) as operator,
    ):
        return await _Load(plan, http, operator).run()


def main() -> None:
    """The command line."""
    plan = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=LoadPlan)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_run(plan))
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(result))


if __name__ == "__main__":
    main()
