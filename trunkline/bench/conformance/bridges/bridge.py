"""A bridge's HTTP: three routes around one object. Owns no project; runs in any project's environment, with the standard library alone.

    python PROJECT_bridge.py --engine http://127.0.0.1:PORT --model FOLDER        prints {"url": ...} once it is ready

A bridge is a class with `info()`, `open()` and `record(session_id)`, which answer JSON-ready values as targets.py says; run_bridge serves
it. The three are called one at a time, off the main thread. The bridge ends with its parent.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Protocol


class Bridge(Protocol):
    """What a project's file implements."""

    def info(self) -> dict[str, Any]:
        """name, version, unsupported."""
        ...

    def open(self) -> dict[str, Any]:
        """id, base_url (ends in /v1), api_key."""
        ...

    def record(self, session_id: str) -> dict[str, Any]:
        """rows and dropped."""
        ...


def run_bridge(build: Callable[[str, str], Bridge]) -> None:
    """Parses the command line, builds the bridge on (engine URL, model folder), and serves it until the parent is gone."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--engine", required=True, help="the kit's engine, without /v1")
    parser.add_argument("--model", required=True, help="folder of the tokenizer")
    arguments = parser.parse_args()
    ready = os.dup(1)
    os.dup2(2, 1)  # what the project prints goes to stderr: stdout carries the one line
    bridge = build(arguments.engine, arguments.model)
    server = HTTPServer(("127.0.0.1", 0), _handler(bridge))
    os.write(ready, json.dumps({"url": f"http://127.0.0.1:{server.server_port}"}).encode() + b"\n")
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    server.serve_forever()


def row(prompt_ids: list[int], token_ids: list[int], logprobs: list[float], *, is_trained: bool = True) -> dict[str, Any]:
    """A row of one call."""
    padding = len(prompt_ids)
    trained = [False] * padding + [is_trained] * len(token_ids)
    return {"token_ids": [*prompt_ids, *token_ids], "trained": trained, "logprobs": [0.0] * padding + list(logprobs)}


def _handler(bridge: Bridge) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = self.path.strip("/").split("/")
            if parts == ["info"]:
                self._answer(bridge.info)
            elif len(parts) == 3 and parts[0] == "sessions" and parts[2] == "record":
                self._answer(lambda: bridge.record(parts[1]))
            else:
                self._send(404, {"error": "no such route"})

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            self._answer(bridge.open) if self.path == "/sessions" else self._send(404, {"error": "no such route"})

        def _answer(self, act: Callable[[], dict[str, Any]]) -> None:
            try:
                self._send(200, act())
            except Exception as error:  # noqa: BLE001 - whatever the project raises is the answer
                traceback.print_exc()
                self._send(500, {"error": f"{type(error).__name__}: {error}"})

        def _send(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            """Silent."""

    return Handler


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    sys.stderr.write("the bridge's parent is gone\n")
    os._exit(0)
