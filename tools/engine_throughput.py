"""Sampled tokens per CPU-second of the local engine on lookup tasks: python tools/engine_throughput.py MODEL [--tasks 8] [--attempts 8].

MODEL is a ChatML policy, such as the cold start of recipes/smollm2.toml: how much attempts at one task agree decides what merging saves.
"""

from __future__ import annotations

import argparse
import random
import time
from pathlib import Path

import torch

from trunkline.engine.local import LocalEngine
from trunkline.gateway.markup import CHATML, MarkupRenderer
from trunkline.models.tokenizer import Tokenizer
from trunkline.tasks.catalog import load_taskset
from trunkline.types import GenerationRequest, PolicyVersion, SamplingParams


def main() -> None:
    """Prints one line: tokens, CPU-seconds, their ratio, and where contexts came from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tasks", type=int, default=8)
    parser.add_argument("--attempts", type=int, default=8)
    parser.add_argument("--max-tokens", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    taskset = load_taskset("lookup", {"invented_share": 0.0})
    renderer = MarkupRenderer(Tokenizer.load(arguments.model), CHATML)
    engine = LocalEngine.load(arguments.model, version=PolicyVersion(1, 0), dtype=torch.float32, max_batch=128, num_slots=16_384)
    rng = random.Random(0)
    for index in range(arguments.tasks):
        task = taskset.task("train", index)
        prompt_ids = renderer.prompt(task.prompt, taskset.open(task).tools.specs)
        for attempt in range(arguments.attempts):
            sampling = SamplingParams(arguments.max_tokens, 1.0, seed=rng.getrandbits(60), stop_token_ids=renderer.stop_token_ids)
            engine.add(GenerationRequest(f"{index}-{attempt}", prompt_ids, sampling))
    started, num_sampled = time.process_time(), 0
    while engine.has_work:
        num_sampled += sum(len(one.generation.token_ids) for one in engine.step())
    seconds = time.process_time() - started
    print(f"{num_sampled} tokens in {seconds:.2f} CPU-s: {num_sampled / seconds:.0f} a CPU-second; {engine.scheduler.stats}")


if __name__ == "__main__":
    main()
