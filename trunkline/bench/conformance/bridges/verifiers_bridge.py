"""The bridge to verifiers (PyPI): its interception server with the token-exact training client. Owns no case.

    pip install verifiers transformers
    trunkline conformance --target verifiers --python PATH/TO/ITS/python

A record is what prime-rl's trainer takes of a trace: each branch a row, a sampled node shared by branches trained in the first.
"""

from __future__ import annotations

import asyncio
import threading
from importlib.metadata import version
from typing import Any

from bridge import run_bridge
from renderers.configs import Qwen3RendererConfig
from verifiers.v1.clients import ModelContext
from verifiers.v1.configs.agent import WireAgentConfig
from verifiers.v1.configs.client import TrainClientConfig
from verifiers.v1.interception.server import InterceptionServer
from verifiers.v1.session import RolloutSession
from verifiers.v1.state import State
from verifiers.v1.task import WireTaskData
from verifiers.v1.trace import AgentInfo, Trace, TraceTask
from verifiers.v1.types import Sampling

_CHAT_ONLY = "verifiers' training client, which alone records token ids, takes Chat Completions only (clients/train.py)"
_UNSUPPORTED = {"responses": _CHAT_ONLY, "messages": _CHAT_ONLY}


class VerifiersBridge:
    """One interception server, one rollout session a case."""

    def __init__(self, engine: str, model: str) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, daemon=True).start()
        self._server = InterceptionServer()
        asyncio.run_coroutine_threadsafe(self._server.start(), self._loop).result()
        client = TrainClientConfig(
            base_url=f"{engine}/v1", api_key_var="CONFORMANCE_KEY", renderer=Qwen3RendererConfig(), renderer_model_name=model
        )
        self._context = ModelContext(model="stub", client=client, sampling=Sampling(temperature=1.0))
        self._traces: dict[str, Trace] = {}

    def info(self) -> dict[str, Any]:
        """As the kit wants it."""
        return {"name": "verifiers", "version": version("verifiers"), "unsupported": _UNSUPPORTED}

    def open(self) -> dict[str, Any]:
        """A trace, and its session registered with the server."""
        trace: Trace = Trace(
            task=TraceTask(type="Task", data=WireTaskData(prompt="a case")), state=State(), agent=AgentInfo(config=WireAgentConfig())
        )
        session = RolloutSession(ctx=self._context, trace=trace)

        async def register() -> str:
            return self._server.register(session)[0]

        secret = asyncio.run_coroutine_threadsafe(register(), self._loop).result()
        self._traces[trace.id] = trace
        return {"id": trace.id, "base_url": f"{self._server.base_url}/v1", "api_key": secret}

    def record(self, session_id: str) -> dict[str, Any]:
        """Branches as prime-rl's iter_trainable_branches reads them; failed calls are counted as dropped."""

        async def read() -> dict[str, Any]:
            return _record(self._traces[session_id])

        return asyncio.run_coroutine_threadsafe(read(), self._loop).result()


def _record(trace: Trace) -> dict[str, Any]:
    trained_nodes: set[int] = set()
    rows = []
    for branch in trace.branches:
        mask: list[bool] = []
        for node in branch.nodes:
            is_new = node.sampled and any(node.mask) and id(node) not in trained_nodes
            mask.extend(node.mask if is_new else [False] * len(node.mask))
            if is_new:
                trained_nodes.add(id(node))
        if any(mask) and branch.trainable:
            rows.append({"token_ids": branch.token_ids, "trained": mask, "logprobs": branch.logprobs})
    failed = [call for call in trace.calls if call.node is None]
    return {"rows": rows, "dropped": [{"reason": call.error.type if call.error else "no turn", "num_tokens": None} for call in failed]}


if __name__ == "__main__":
    run_bridge(VerifiersBridge)
