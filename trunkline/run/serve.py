"""`trunkline serve`: one engine process and a gateway with one key, until it is stopped. Owns their lifetime; no sampling, no HTTP.

this process: gateway (HTTP port) ── Unix socket ──► engine process
    └── with a record only: journal
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import json
import secrets
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trunkline.asgi import serve_port
from trunkline.engine.wire import WireHealth
from trunkline.errors import ConfigError
from trunkline.gateway.app import build_app
from trunkline.gateway.base import Renderer
from trunkline.gateway.sampling import ClientSampling
from trunkline.gateway.serving import ServingGateway
from trunkline.models.tokenizer import Tokenizer
from trunkline.pool.journal import Journal
from trunkline.protocols import CompletionLog
from trunkline.run.processes import socket_directory
from trunkline.run.wiring import engine_side, guarded, named_renderer
from trunkline.types import Completion, Episode, Failure, MessageNode, PolicyVersion

OPEN_KEY = "trunkline"
"""What --open sets as the key."""
RENDERER_CHOICES = "tiny, chatml, or a name of the renderers package such as qwen3, llama-3, glm-4.5 or minimax-m2"

_UNJUDGED = Failure("verifier", "Unjudged", "a served call has no task, so nothing judged it")
_GRACE_S = 3.0
_MAX_BATCH = 256  # what the cache holds is the tighter bound for models of any size
_EVERY_INTERFACE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True)
class ServeOptions:
    """What `trunkline serve` was asked."""

    model: Path
    """A Hugging Face folder or a .gguf file."""
    model_name: str
    """What answers and GET /v1/models call it."""
    host: str = "127.0.0.1"
    """Where to listen."""
    port: int = 8000
    """0 takes a free one."""
    is_open: bool = False
    """The key is OPEN_KEY; loopback only."""
    renderer: str = "auto"
    """How messages become tokens."""
    max_cached_tokens: int | None = None
    """Tokens whose keys and values the engine keeps; None takes what 512 MB hold, at least one context."""
    max_tokens: int = 1024
    """Sampled tokens of a call whose client names no limit."""
    record: Path | None = None
    """A journal of all calls; None writes nothing."""


@dataclass(frozen=True)
class Served:
    """What clients need to know of a running server."""

    base_url: str
    """Ends in /v1."""
    key: str
    """The API key."""
    model_name: str
    """The model to ask for; any other name is answered too."""

    def lines(self) -> list[str]:
        """What is printed at the start; the key appears here and nowhere else."""
        return [
            f"serving {self.model_name} at {self.base_url} (Ctrl-C stops)",
            f"key: {self.key}",
            "# in a shell:",
            self.curl,
            "# in Python:",
            self.python,
        ]

    @property
    def curl(self) -> str:
        """A shell command that asks the model something."""
        messages = [{"role": "user", "content": "Say hello."}]
        body = json.dumps({"model": self.model_name, "messages": messages, "temperature": 0, "max_tokens": 32})
        headers = ["-H", f"Authorization: Bearer {self.key}", "-H", "Content-Type: application/json"]
        return shlex.join(["curl", f"{self.base_url}/chat/completions", *headers, "-d", body])

    @property
    def python(self) -> str:
        """The same on OpenAI's client, as a line of Python."""
        return (
            f"from openai import OpenAI; client = OpenAI(base_url={self.base_url!r}, api_key={self.key!r}); "
            f"print(client.chat.completions.create(model={self.model_name!r}, temperature=0, max_tokens=32, "
            'messages=[{"role": "user", "content": "Say hello."}]).choices[0].message.content)'
        )


class NoRecord:
    """A CompletionLog that writes nothing."""

    async def record_completion(self, episode_id: str, completion: Completion, messages: Sequence[MessageNode]) -> None:
        """Nothing."""


class CallRecord:
    """A CompletionLog of served calls: each is an episode that ends with its call, so that the journal holds none open."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def record_completion(self, episode_id: str, completion: Completion, messages: Sequence[MessageNode]) -> None:
        """Returns once durable. Raises JournalError."""
        episode = Episode(
            episode_id=episode_id,
            group_id=episode_id,
            task_id="served",
            attempt=0,
            status="failed",
            completions=(completion,),
            messages=tuple(messages),
            failure=_UNJUDGED,
        )
        await self._journal.record_episode(episode)


async def serve(options: ServeOptions, announce: Callable[[Served], None]) -> None:
    """Serves until SIGINT or SIGTERM, then lets calls in flight end for a few seconds. `announce` is called once it accepts calls.

    Raises:
        ConfigError: no tokenizer, a renderer that does not fit it, a port in use, --open beyond loopback.
        EngineError: the engine cannot load the model, or died; with the end of its log.
        JournalError: the record cannot be written any more.
    """
    serving = asyncio.create_task(_serve(options, announce))
    is_stopped = False

    def stop() -> None:
        nonlocal is_stopped
        if not is_stopped:  # a second Ctrl-C must not cut the clean end short, which takes seconds at most
            is_stopped = True
            serving.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    try:
        await serving
    except asyncio.CancelledError:
        if not is_stopped:
            raise


def choose_renderer(name: str, tokenizer: Tokenizer, folder: Path) -> Renderer:
    """The named renderer; for 'auto' the one whose special tokens the vocabulary has.

    Raises ConfigError if it does not fit the tokenizer, or nothing can be told from the tokenizer.
    """
    if name != "auto":
        return named_renderer(name, tokenizer, folder)
    for guess in ("chatml", "tiny"):
        with contextlib.suppress(ConfigError):  # the vocabulary lacks its marks
            return named_renderer(guess, tokenizer, folder)
    raise ConfigError(f"the vocabulary of {folder} has the marks of no known chat format; choose one with --renderer: {RENDERER_CHOICES}")


async def _serve(options: ServeOptions, announce: Callable[[Served], None]) -> None:
    key = _key(options)
    renderer = choose_renderer(options.renderer, Tokenizer.load(options.model), options.model)
    async with contextlib.AsyncExitStack() as stack:
        sockets = stack.enter_context(socket_directory())
        log: CompletionLog = NoRecord()
        version = PolicyVersion(1, 0)
        record_failure: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if options.record is not None:
            journal = Journal.open(options.record)
            stack.push_async_callback(journal.close)
            log, version, record_failure = CallRecord(journal), PolicyVersion(journal.incarnation, 0), journal.failed
        engine = await stack.enter_async_context(
            engine_side(
                sockets,
                model=options.model,
                version=version,
                max_batch=_MAX_BATCH,
                max_cached_tokens=options.max_cached_tokens,
                log_path=sockets / "engine.log",
            )
        )
        gateway = ServingGateway(
            engine.client,
            renderer,
            log,
            model_name=options.model_name,
            key=key,
            sampling=ClientSampling(max_tokens=options.max_tokens),
            max_context=_max_context(await engine.client.health(), options),
        )
        http = await serve_port(build_app(gateway), host=options.host, port=options.port)
        stack.push_async_callback(http.stop)
        stack.push_async_callback(gateway.stop, grace_s=_GRACE_S)
        announce(Served(_base_url(options.host, http.port), key, options.model_name))
        await guarded(asyncio.Event().wait(), engine.child.watch(), _outcome(record_failure))


async def _outcome(failure: asyncio.Future[None]) -> None:
    await asyncio.shield(failure)


def _key(options: ServeOptions) -> str:
    if not options.is_open:
        return f"tl-{secrets.token_urlsafe(24)}"
    if not _is_loopback(options.host):
        raise ConfigError(
            f"--open sets a key that everybody knows, so it is for loopback only, got --host {options.host}; "
            "leave out --open to get a secret key, or listen on 127.0.0.1"
        )
    return OPEN_KEY


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _base_url(host: str, port: int | None) -> str:
    host = _EVERY_INTERFACE.get(host, host)
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def _max_context(engine: WireHealth, options: ServeOptions) -> int:
    """Most tokens of prompt and completion: the engine's, or what its cache holds if that is less."""
    if options.max_cached_tokens is None:
        return engine.max_context
    return min(engine.max_context, options.max_cached_tokens + 1)  # the last sampled token needs no slot
