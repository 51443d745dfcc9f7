"""How much memory a run of a workload takes beyond model and data. Owns the measurement; Linux only on CPU."""

from __future__ import annotations

import gc
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


def peak_bytes(bench: Bench, form: str, *, micro_batch: int) -> int:
    """Most bytes alive during `form` ('flat', 'forest', 'kept' or 'recomputed' partitions) less those before it.

    On CUDA the allocator knows. On CPU a fresh process runs, whose malloc gives freed blocks back at once: what it holds is alive.
    """
    if bench.setting.device.type == "cuda":
        return _allocated(bench, form, micro_batch)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MALLOC_TRIM_THRESHOLD_": "65536", "MALLOC_MMAP_THRESHOLD_": "65536"}
    command = [sys.executable, "-m", "trunkline.bench.tree.memory", bench.workload.name, form, str(micro_batch)]
    return int(json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout))


def _allocated(bench: Bench, form: str, micro_batch: int) -> int:
    bench.policy.zero_grad(set_to_none=True)
    gc.collect()
    with bench.computing():  # narrower copies of the weights are no activations either
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        _run(bench, form, micro_batch)
        peak = torch.cuda.max_memory_allocated()
    return peak - before - _gradient_bytes(bench)


def _main(name: str, form: str, micro_batch: str) -> None:
    torch.set_num_threads(1)
    workload = next(workload for workload in workloads() if workload.name == name)
    bench = Bench(workload, Setting(torch.device("cpu")))
    bench.forest()
    two = torch.arange(2)
    bench.policy(two, two, CausalAttend())  # what is made at first use is no activation
    Path("/proc/self/clear_refs").write_text("5")
    before = _resident()
    _run(bench, form, int(micro_batch))
    sys.stdout.write(json.dumps(_resident() - before - _gradient_bytes(bench)))


def _run(bench: Bench, form: str, micro_batch: int) -> None:
    match form:
        case "flat":
            bench.run_flat(bench.flat_batches(bench.calls, micro_batch))
        case "forest":
            bench.run_forest()
        case "kept" | "recomputed":
            bench.run_forest(max_tokens=-(-bench.forest().num_tokens // 8), recompute=form == "recomputed")


def _gradient_bytes(bench: Bench) -> int:
    return sum(parameter.grad.nbytes for parameter in bench.policy.parameters() if parameter.grad is not None)


def _resident() -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * _KIB


if __name__ == "__main__":
    _main(*sys.argv[1:])
