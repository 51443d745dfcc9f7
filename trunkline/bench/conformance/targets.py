"""What is tested: Trunkline's gateway in this process, or another project's capture server behind a bridge. Owns no case.

A target says what it is, opens a session for an agent, and tells what was recorded of it. A bridge (bridges/bridge.py) does
the same over HTTP:

    GET /info                   {"name", "version", "unsupported": {feature: reason}}
    POST /sessions              {"id", "base_url", "api_key"}
    GET /sessions/ID/record     {"rows": [{"token_ids", "trained", "logprobs"}], "dropped": [{"reason", "num_tokens"}]}
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import aiohttp

from trunkline import __version__
from trunkline.bench.conformance.model import CHAT_FORMAT, MODEL_NAME, ChatModel
from trunkline.bench.conformance.record import Dropped, Record, Row
from trunkline.errors import ConfigError, InfraError

if TYPE_CHECKING:
    from trunkline.gateway.gateway import Gateway
    from trunkline.types import Completion

_BRIDGES = Path(__file__).parent / "bridges"
_BRIDGE_START_S = 120.0
_MAX_TOKENS = 4096
_MAX_CONTEXT = 262_144


def known_bridges() -> list[str]:
    """Names of the projects that have a bridge here."""
    return sorted(path.stem.removesuffix("_bridge") for path in _BRIDGES.glob("*_bridge.py"))


@dataclass(frozen=True)
class Door:
    """What an agent is told."""

    session_id: str
    """For the record; no secret."""
    base_url: str
    """Ends in /v1."""
    api_key: str
    """Its key."""


class Target(Protocol):
    """A capture proxy. `TrunklineTarget` is one in this process."""

    @property
    def name(self) -> str:
        """As in the table."""
        ...

    @property
    def version(self) -> str:
        """Of what is tested."""
        ...

    @property
    def unsupported(self) -> Mapping[str, str]:
        """Features that it says it does not have, each with where it says so: responses, messages, stream, n, keys (sessions
        have none), rendering (the engine renders prompts, not the proxy)."""
        ...

    async def open(self) -> Door:
        """A fresh session."""
        ...

    async def record(self, door: Door) -> Record:
        """What was captured of it so far."""
        ...


@dataclass(frozen=True)
class EngineAddress:
    """Where targets reach the kit's engine, and the model's files."""

    url: str
    """http://127.0.0.1:PORT, without /v1."""
    socket: Path
    """The same engine on a Unix socket."""
    model_folder: Path
    """Tokenizer files."""


class TrunklineTarget:
    """Our gateway with our engine client, the record read in memory."""

    name = "trunkline"
    version = __version__
    unsupported: Mapping[str, str] = {}

    def __init__(self, gateway: Gateway, root: str) -> None:
        self._gateway = gateway
        self._root = root
        self._num_opened = 0

    @classmethod
    @asynccontextmanager
    async def serving(cls, engine: EngineAddress, model: ChatModel) -> AsyncIterator[TrunklineTarget]:
        """A gateway on a free port as long as the context lasts."""
        from trunkline.asgi import serve_port
        from trunkline.engine.client import EngineClient
        from trunkline.gateway.app import build_app
        from trunkline.gateway.gateway import Gateway
        from trunkline.gateway.packaged import load_packaged_renderer

        client = EngineClient(engine.socket)
        gateway = Gateway(client, load_packaged_renderer(CHAT_FORMAT, model.tokenizer), _Forgets(), model_name=MODEL_NAME)
        serving = await serve_port(build_app(gateway))
        try:
            yield cls(gateway, f"http://127.0.0.1:{serving.port}")
        finally:
            await serving.stop()
            await client.close()

    async def open(self) -> Door:
        """A session of an episode of its own."""
        from trunkline.gateway.sampling import SamplingHold
        from trunkline.gateway.sessions import SessionBudget

        self._num_opened += 1
        episode_id = f"case-{self._num_opened}"
        hold, budget = SamplingHold(max_tokens=_MAX_TOKENS), SessionBudget(max_context=_MAX_CONTEXT)
        opened = self._gateway.open_session(episode_id=episode_id, seed=self._num_opened, hold=hold, budget=budget)
        return Door(episode_id, f"{self._root}/v1", opened.secret)

    async def record(self, door: Door) -> Record:
        """Every completion is a row, trained unless it has a drop reason."""
        completions = self._gateway.episode_record(door.session_id).completions
        dropped = [Dropped(one.drop_reason, one.num_sampled) for one in completions if one.drop_reason is not None]
        dropped += [Dropped("after a stop string", one.facts.num_discarded) for one in completions if one.facts.num_discarded]
        return Record(tuple(_row(one) for one in completions), tuple(dropped))


def _row(completion: Completion) -> Row:
    sampled = completion.generation
    return Row.of_call(completion.prompt_ids, sampled.token_ids, sampled.logprobs, is_trained=completion.drop_reason is None)


class _Forgets:
    """A CompletionLog: the kit reads the record in memory."""

    async def record_completion(self, episode_id: str, completion: object, messages: object) -> None:
        """Durable at once."""


class BridgeTarget:
    """Another project's server behind a bridge."""

    def __init__(self, url: str, http: aiohttp.ClientSession, info: Mapping[str, object]) -> None:
        self._url = url
        self._http = http
        self.name = str(info["name"])
        self.version = str(info["version"])
        unsupported = info.get("unsupported") or {}
        assert isinstance(unsupported, Mapping)
        self.unsupported: Mapping[str, str] = dict(unsupported)

    @classmethod
    @asynccontextmanager
    async def at(cls, url: str) -> AsyncIterator[BridgeTarget]:
        """A bridge that runs already. Raises ConfigError if none answers there."""
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=60)) as http:
            try:
                async with http.get(f"{url}/info") as response:
                    info = await response.json()
                target = cls(url, http, info)
            except (aiohttp.ClientError, ValueError, KeyError, TypeError) as error:
                raise ConfigError(f"no bridge answers {url}/info: {error!r}; see docs/benchmarks/conformance.md") from error
            yield target

    @classmethod
    @asynccontextmanager
    async def started(cls, name: str, python: str, engine: EngineAddress) -> AsyncIterator[BridgeTarget]:
        """Starts bridges/NAME_bridge.py with the project's own interpreter.

        Raises ConfigError for an unknown name, InfraError if it does not start.
        """
        known = known_bridges()
        if name not in known:
            raise ConfigError(f"no target {name!r}; choose trunkline or one of {known}")
        arguments = ("--engine", engine.url, "--model", str(engine.model_folder))
        log = engine.model_folder.parent / f"{name}.log"
        with log.open("wb") as errors:
            program = str(_BRIDGES / f"{name}_bridge.py")
            process = await asyncio.create_subprocess_exec(
                python, program, *arguments, stdout=asyncio.subprocess.PIPE, stderr=errors, start_new_session=True
            )
        try:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), _BRIDGE_START_S)
            if not line:
                end = log.read_text(errors="replace").strip()[-600:]
                raise InfraError(f"the bridge of {name} ended before it was ready; is {name} installed for {python}? Its last words: {end}")
            async with cls.at(json.loads(line)["url"]) as target:
                yield target
        except TimeoutError as error:
            raise InfraError(f"the bridge of {name} was not ready after {_BRIDGE_START_S:g} s") from error
        finally:
            with contextlib.suppress(ProcessLookupError):
                process.terminate()
            await process.wait()

    async def open(self) -> Door:
        """POST /sessions."""
        async with self._http.post(f"{self._url}/sessions") as response:
            opened = await response.json()
        return Door(str(opened["id"]), opened["base_url"], opened["api_key"])

    async def record(self, door: Door) -> Record:
        """GET the session's record. Raises InfraError if the bridge cannot read it."""
        async with self._http.get(f"{self._url}/sessions/{door.session_id}/record") as response:
            text = await response.text()
        if response.status != 200:
            raise InfraError(f"{self.name} cannot tell what it recorded: {text[:300]}")
        return Record.from_json(json.loads(text))
