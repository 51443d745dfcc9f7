"""The trainer's process: one learner behind HTTP on a Unix socket. Owns the process and the wire; the work is step.py's.

    python -m trunkline.trainer.server --socket PATH --model FOLDER

    GET  /healthz            POST /publish     {version, directory} -> WeightRef
    POST /phase              POST /checkpoint  {folder}
    POST /supervised_steps   POST /restore     {folder}
    POST /train_step         POST /save_model  {folder}

A step blocks the event loop on purpose: there is one client, which waits for this answer and has nothing else to ask, and
a thread beside torch would cost half of its throughput.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path
from types import FrameType

import torch
import uvicorn
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from trunkline.errors import ConfigError, TrainerError, TrunklineError
from trunkline.models.load import load_policy, save_policy
from trunkline.trainer.batch import SampleBatch, unpack_demonstrations
from trunkline.trainer.checkpoint import restore_checkpoint, save_checkpoint
from trunkline.trainer.config import PhaseConfig, TrainerConfig
from trunkline.trainer.step import Learner
from trunkline.types import PolicyVersion
from trunkline.weights.files import publish

_PARENT_POLL_S = 0.5
_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bfloat16": torch.bfloat16}


class TrainerRoutes:
    """HTTP verbs of one learner."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner

    def app(self) -> Starlette:
        """The application; errors are {"error": {"type", "message"}}."""
        posts = (self.phase, self.supervised_steps, self.train_step, self.publish, self.checkpoint, self.restore, self.save_model)
        routes = [Route("/healthz", self.healthz), *(Route(f"/{post.__name__}", post, methods=["POST"]) for post in posts)]
        handlers = {TrunklineError: _refused, ValidationError: _refused, Exception: _broken}
        return Starlette(routes=routes, exception_handlers=handlers)

    async def healthz(self, request: Request) -> Response:
        """200 as soon as the model is loaded; answers the longest sample that it computes exactly."""
        return JSONResponse({"status": "ready", "max_context": self.learner.policy.config.max_positions})

    async def phase(self, request: Request) -> Response:
        """A fresh optimiser; body: PhaseConfig."""
        self.learner.begin_phase(PhaseConfig.model_validate_json(await request.body()))
        return JSONResponse({})

    async def supervised_steps(self, request: Request) -> Response:
        """One optimiser step a batch of the body; answers their StepStats."""
        batches = unpack_demonstrations(await request.body())
        return JSONResponse([asdict(self.learner.supervised_step(batch)) for batch in batches])

    async def train_step(self, request: Request) -> Response:
        """One RL step on the body's samples; answers its StepStats."""
        return JSONResponse(asdict(self.learner.train_step(SampleBatch.from_bytes(await request.body()))))

    async def publish(self, request: Request) -> Response:
        """Writes the current weights under {version} into {directory}; answers their path."""
        fields = await _fields(request, "version", "directory")
        try:
            version = PolicyVersion.parse(fields["version"])
        except ValueError as error:
            raise ConfigError(str(error)) from error
        reference = publish(self.learner.policy.state_dict(), version, Path(fields["directory"]))
        return JSONResponse({"path": str(reference.path), "version": str(reference.version)})

    async def checkpoint(self, request: Request) -> Response:
        """Model, optimiser, phase and step into {folder}."""
        save_checkpoint(self.learner, await _folder(request))
        return JSONResponse({})

    async def restore(self, request: Request) -> Response:
        """Back to the checkpoint in {folder}; answers the phase's steps."""
        restore_checkpoint(self.learner, await _folder(request))
        assert self.learner.progress is not None
        return JSONResponse({"step": self.learner.progress.num_steps})

    async def save_model(self, request: Request) -> Response:
        """The policy into {folder}, as transformers loads it."""
        save_policy(self.learner.policy, await _folder(request))
        return JSONResponse({})


async def _fields(request: Request, *names: str) -> dict[str, str]:
    try:
        body = await request.json()
    except ValueError as error:
        raise ConfigError(f"the body is not JSON: {error}") from error
    if not isinstance(body, dict) or set(body) != set(names) or not all(isinstance(value, str) for value in body.values()):
        raise ConfigError(f"the body must be a JSON object of strings with the keys {', '.join(names)}, got {body!r}")
    return body


async def _folder(request: Request) -> Path:
    return Path((await _fields(request, "folder"))["folder"])


async def _refused(request: Request, error: Exception) -> Response:
    """The caller's mistake, or a step that cannot be made: the process is well and its state unchanged."""
    kind = "ConfigError" if isinstance(error, ValidationError) else type(error).__name__
    return _error(422 if isinstance(error, TrainerError) else 400, kind, str(error))


async def _broken(request: Request, error: Exception) -> Response:
    """A defect of ours: answered, and raised again by Starlette, so that the log holds its traceback."""
    return _error(500, type(error).__name__, str(error))


def _error(status: int, kind: str, message: str) -> Response:
    return JSONResponse({"error": {"type": kind, "message": message}}, status_code=status)


class _Server(uvicorn.Server):
    """uvicorn that leaves Ctrl-C to the conductor, and ends with status 0 on SIGTERM."""

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGINT:
            self.should_exit = True


def serve(learner: Learner, socket_path: Path) -> None:
    """Serves until SIGTERM. The socket is the owner's alone."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    socket_path.unlink(missing_ok=True)
    previous = os.umask(0o177)
    try:
        listener.bind(str(socket_path))
    except OSError as error:
        raise ConfigError(f"cannot listen on {socket_path}: {error} (a socket's path holds at most 107 bytes)") from error
    finally:
        os.umask(previous)
    config = uvicorn.Config(
        TrainerRoutes(learner).app(),
        loop="uvloop",
        http="httptools",
        lifespan="off",
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=1,
    )
    try:
        _Server(config).run(sockets=[listener])
    finally:
        socket_path.unlink(missing_ok=True)


def load_learner(model: Path, config: TrainerConfig, *, dtype: torch.dtype = torch.float32) -> Learner:
    """A learner of the model in a folder. Raises ConfigError for a model that cannot be trained, or a device that is not there."""
    if config.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("trainer.device is cuda, but this torch sees no CUDA device; use cpu, or install a CUDA build of torch")
    policy = load_policy(model, dtype=dtype)
    policy.to(torch.device(config.device))
    return Learner(policy, config)


def end_with_parent(parent: int) -> None:
    """Ends this process soon after process `parent`, also in the middle of a step: nobody is left to want its result."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_PARENT_POLL_S)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m trunkline.trainer.server", description="One trainer on a Unix socket.")
    parser.add_argument("--socket", type=Path, required=True, help="where to listen")
    parser.add_argument("--model", type=Path, required=True, help="Hugging Face folder of the initial policy")
    parser.add_argument("--threads", type=int, default=1, help="torch threads; more than one pays only with spare cores")
    parser.add_argument("--dtype", choices=_DTYPES, default="float32", help="of weights; what they compute in is the configuration's")
    parser.add_argument("--config", type=TrainerConfig.model_validate_json, default=TrainerConfig(), help="a TrainerConfig as JSON")
    parser.add_argument("--parent", type=int, default=os.getppid(), help="end with this process, the parent")
    arguments = parser.parse_args()
    end_with_parent(arguments.parent)
    torch.set_num_threads(arguments.threads)
    try:
        serve(load_learner(arguments.model, arguments.config, dtype=_DTYPES[arguments.dtype]), arguments.socket)
    except TrunklineError as error:
        sys.exit(f"error: {error}")  # one line in the log, which is what the conductor shows


if __name__ == "__main__":
    main()
