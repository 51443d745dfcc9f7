"""The bridge to Agent Lightning's server (PyPI: agentlightning): its proxy and its rollout events. Owns no case.

    pip install agentlightning
    trunkline conformance --target agentlightning --python PATH/TO/ITS/python

A record is GET /api/rollouts/ID/events?format=triplet, what its trainer reads; model requests that the raw events hold and the
triplets leave out (the same prompt asked again) are counted as dropped.
"""

from __future__ import annotations

import asyncio
import threading
from importlib.metadata import version
from typing import Any

import httpx
import uvicorn
from agentlightning.server.app import create_app
from bridge import row, run_bridge

_KEY = "conformance"
_CHAT_ONLY = "Agent Lightning's proxy takes chat/completions and completions only (server/routes/proxy.py)"
_UNSUPPORTED = {
    "responses": _CHAT_ONLY,
    "messages": _CHAT_ONLY,
    "rendering": "the engine renders prompts, not Agent Lightning's proxy",
    "stream": "Agent Lightning's proxy answers 400: 'Streaming responses are not supported' (server/proxy.py)",
}


class AgentLightningBridge:
    """One server, one rollout a case."""

    def __init__(self, engine: str, model: str) -> None:
        proxy = {"model_name": "stub", "include_log_probs": True, "train": {"temperature": 1}, "val": {"temperature": 0.7}}
        app = create_app({"key": _KEY, "default_proxy": proxy})
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
        threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True).start()
        while not server.started:
            threading.Event().wait(0.05)
        self._root = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        self._http = httpx.Client(base_url=self._root, headers={"authorization": f"Bearer {_KEY}"})
        self._http.post("/api/models", json=[{"model": "stub", "endpoint": f"{engine}/v1"}]).raise_for_status()

    def info(self) -> dict[str, Any]:
        """As the kit wants it."""
        return {"name": "agentlightning", "version": version("agentlightning"), "unsupported": _UNSUPPORTED}

    def open(self) -> dict[str, Any]:
        """A training rollout; it is in the path."""
        (rollout,) = self._http.post("/api/rollouts", json=[{"input": "a case"}]).raise_for_status().json()
        path = f"/proxy/rollout/{rollout['rollout_id']}/attempt/0/mode/train/openai/v1"
        return {"id": rollout["rollout_id"], "base_url": self._root + path, "api_key": _KEY}

    def record(self, session_id: str) -> dict[str, Any]:
        """Triplets as rows; requests with sampled tokens that are no triplet as dropped."""
        triplets = self._events(session_id, {"format": "triplet"})
        rows = [_row(event["data"]) for event in triplets if event["data"]["response_token_ids"]]
        num_raw = [len(one) for event in self._events(session_id, {}) for one in _sampled(event["data"])]
        missing = sum(num_raw) - sum(len(event["data"]["response_token_ids"]) for event in triplets)
        return {"rows": rows, "dropped": [{"reason": "the same prompt was asked again", "num_tokens": missing}] if missing else []}

    def _events(self, session_id: str, parameters: dict[str, str]) -> list[dict[str, Any]]:
        response = self._http.get(f"/api/rollouts/{session_id}/events", params={"event_type": "model_request", **parameters})
        events: list[dict[str, Any]] = response.raise_for_status().json()
        return events


def _row(data: dict[str, Any]) -> dict[str, Any]:
    return row(data["prompt_token_ids"], data["response_token_ids"], data["response_log_probs"] or [])


def _sampled(data: dict[str, Any]) -> list[list[int]]:
    """The first choice's tokens, the only ones that anything of Agent Lightning reads."""
    response = data.get("response")
    choices = (response.get("choices") or [])[:1] if isinstance(response, dict) else []
    return [choice.get("token_ids") or [] for choice in choices]


if __name__ == "__main__":
    run_bridge(AgentLightningBridge)
