"""A gateway with its journal as a process of its own, to be killed. Started by tests; prints its port and the session's key.

python -m tests.integration.gateway_process JOURNAL ENGINE_SOCKET [MAX_FILE_BYTES]
"""

from __future__ import annotations

import asyncio
import json
import resource
import signal
import sys
from pathlib import Path

from tests.chat_formats import family
from trunkline.asgi import serve_port
from trunkline.engine.client import EngineClient
from trunkline.gateway.app import build_app
from trunkline.gateway.gateway import Gateway
from trunkline.gateway.sampling import SamplingHold
from trunkline.gateway.sessions import SessionBudget
from trunkline.pool.journal import Journal


async def serve(journal_path: str, engine_socket: str) -> None:
    """Until it is killed."""
    renderer, _ = family("kimi-k2")
    journal = Journal.open(Path(journal_path))
    gateway = Gateway(EngineClient(Path(engine_socket)), renderer, journal, model_name="tiny")
    opened = gateway.open_session(episode_id="g0-a00", seed=1, hold=SamplingHold(max_tokens=64), budget=SessionBudget())
    serving = await serve_port(build_app(gateway, keep_alive_s=0.1))
    sys.stdout.write(json.dumps({"port": serving.port, "key": opened.secret}) + "\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    if len(sys.argv) > 3:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # writes then fail as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
