"""How much memory a run of a workload takes beyond model and data, in a process of its own. Owns the measurement; Linux only on CPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from trunkline.attention.base import CausalAttend
from trunkline.bench.tree.measure import Bench, Setting
from trunkline.bench.tree.workloads import workloads

_KIB = 1024


def peak_bytes(workload: str, form: str, *, device: str, micro_batch: int) -> int:
    """Most bytes alive during `form` ('flat', 'forest', 'kept' or 'recomputed' partitions) less those before it.

    A fresh process, whose malloc gives freed blocks back at once: what it holds is what is alive.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "trunkline.bench.tree.memory", workload, form, device, str(micro_batch)]
    return int(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout))


def _main(name: str, form: str, device: str, micro_batch: str) -> None:
    torch.set_num_threads(1)
    workload = next(workload for workload in workloads() if workload.name == name)
    bench = Bench(workload, Setting(torch.device(device)))
    num_tokens = bench.forest().num_tokens
    two = torch.arange(2, device=device)
    bench.policy(two, two, CausalAttend())  # what is made at first use is no activation
    _reset_peak(device)
    before = _peak(device)
    match form:
        case "flat":
            bench.run_flat(bench.flat_batches(bench.calls, int(micro_batch)))
        case "forest":
            bench.run_forest()
        case "kept" | "recomputed":
            bench.run_forest(max_tokens=-(-num_tokens // 8), recompute=form == "recomputed")
    gradients = sum(p.grad.nbytes for p in bench.policy.parameters() if p.grad is not None)
    sys.stdout.write(json.dumps(_peak(device) - before - gradients))


def _reset_peak(device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: str) -> int:
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * _KIB


if __name__ == "__main__":
    _main(*sys.argv[1:])
