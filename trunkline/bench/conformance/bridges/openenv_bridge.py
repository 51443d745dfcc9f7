"""The bridge to OpenEnv's capture server (PyPI: openenv, core.harness.capture). Owns no case.

    pip install openenv
    trunkline conformance --target openenv --python PATH/TO/ITS/python

A record is GET /sessions/ID/trace_entries, its per-call training contract; calls that the rollout document lists and the
contract leaves out (auxiliary, discarded) are counted as dropped.
"""

from __future__ import annotations

import asyncio
import threading
from importlib.metadata import version
from typing import Any

import httpx
import uvicorn
from bridge import run_bridge
from openenv.core.harness.capture.server import create_app

_UNSUPPORTED = {"rendering": "the engine renders prompts, not OpenEnv's capture server"}


class OpenEnvBridge:
    """One capture server, one session a case."""

    def __init__(self, engine: str, model: str) -> None:
        server = uvicorn.Server(uvicorn.Config(create_app(llm_url=engine, model="stub"), host="127.0.0.1", port=0, log_level="warning"))
        threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True).start()
        while not server.started:
            threading.Event().wait(0.05)
        self._root = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"

    def info(self) -> dict[str, Any]:
        """As the kit wants it."""
        return {"name": "openenv", "version": version("openenv"), "unsupported": _UNSUPPORTED}

    def open(self) -> dict[str, Any]:
        """A training session with its policy held; the key is the session's id."""
        opened = httpx.post(f"{self._root}/sessions", json={"purpose": "train", "sampling": {"temperature": 1.0}}).raise_for_status().json()
        return {"id": opened["session_id"], "base_url": f"{self._root}/v1", "api_key": opened["session_id"]}

    def record(self, session_id: str) -> dict[str, Any]:
        """Entries as rows; what the document lists beside them as dropped."""
        document = httpx.get(f"{self._root}/sessions/{session_id}/rollout").raise_for_status().json()
        if not document["turns"]:
            return {"rows": [], "dropped": []}
        entries = httpx.get(f"{self._root}/sessions/{session_id}/trace_entries").raise_for_status().json()["entries"]
        kept = {entry["metadata"]["node_id"] for entry in entries}
        left_out = [turn for turn in document["turns"] if turn["node_id"] not in kept]
        dropped = [{"reason": "discarded" if turn["discarded"] else "auxiliary", "num_tokens": turn["n_sampled"]} for turn in left_out]
        return {"rows": [_row(entry) for entry in entries], "dropped": dropped}


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    prompt, sampled = entry["prompt_token_ids"], entry["completion_token_ids"]
    logprobs = [0.0] * len(prompt) + entry["per_token_logps"]
    return {"token_ids": prompt + sampled, "trained": [bool(bit) for bit in entry["loss_mask"]], "logprobs": logprobs}


if __name__ == "__main__":
    run_bridge(OpenEnvBridge)
