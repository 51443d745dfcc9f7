"""The bridge to rllm-model-gateway (PyPI): its gateway in memory mode, its traces as rows. Owns no case.

pip install rllm-model-gateway
trunkline conformance --target rllm --python PATH/TO/ITS/python
"""

from __future__ import annotations

import asyncio
import threading
from importlib.metadata import version
from typing import Any

import httpx
import uvicorn
from bridge import row, run_bridge
from rllm_model_gateway.models import GatewayConfig, WorkerConfig
from rllm_model_gateway.server import create_app

_UNSUPPORTED = {
    "responses": "rllm-model-gateway records what it reads from Chat Completions' answers; other routes are passed through",
    "messages": "rllm-model-gateway records what it reads from Chat Completions' answers; other routes are passed through",
    "keys": "rllm-model-gateway's sessions have no keys yet (a note in its server.py)",
    "rendering": "the engine renders prompts, not rllm-model-gateway",
}


class RllmBridge:
    """One gateway, one session a case."""

    def __init__(self, engine: str, model: str) -> None:
        config = GatewayConfig(store_worker="memory", workers=[WorkerConfig(url=f"{engine}/v1")], sync_traces=True)
        server = uvicorn.Server(uvicorn.Config(create_app(config), host="127.0.0.1", port=0, log_level="warning"))
        threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True).start()
        while not server.started:
            threading.Event().wait(0.05)
        self._root = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def info(self) -> dict[str, Any]:
        """As the kit wants it."""
        return {"name": "rllm-model-gateway", "version": version("rllm-model-gateway"), "unsupported": _UNSUPPORTED}

    def open(self) -> dict[str, Any]:
        """Its own session route; the session is in the path."""
        opened = httpx.post(f"{self._root}/sessions", json={}).json()
        return {"id": opened["session_id"], "base_url": f"{self._root}{opened['url']}", "api_key": "unused"}

    def record(self, session_id: str) -> dict[str, Any]:
        """Each trace that has sampled tokens is a row; the gateway itself drops nothing and masks nothing."""
        traces = httpx.get(f"{self._root}/sessions/{session_id}/traces").raise_for_status().json()
        sampled = [trace for trace in traces if trace["completion_token_ids"]]
        return {
            "rows": [row(one["prompt_token_ids"], one["completion_token_ids"], one["logprobs"] or []) for one in sampled],
            "dropped": [],
        }


if __name__ == "__main__":
    run_bridge(RllmBridge)
