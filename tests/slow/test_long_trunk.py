"""A step on 64 calls over a trunk of 32,768 tokens with the quickstart's model: on CPU, in bounded memory."""

import json
import subprocess
import sys

import pytest

STEP = """
import json, random, resource, sys, time
import torch
torch.set_num_threads(1)
from pathlib import Path
from trunkline.models.checkpoint import init_decoder
from trunkline.models.config import DecoderConfig
from trunkline.run.recipe import ScratchModel
from trunkline.run.scratch import prepare_folder
from trunkline.tasks.lookup import vocabulary
from trunkline.trainer.batch import SampleBatch
from trunkline.trainer.config import OptimizerConfig, PhaseConfig
from trunkline.trainer.step import Learner
from trunkline.types import TrainSample

folder = Path(sys.argv[1])
prepare_folder(folder, ScratchModel(max_positions=40_000), pieces=vocabulary.PIECES, characters=vocabulary.CHARACTERS)
config = DecoderConfig.from_hf(json.loads((folder / "config.json").read_text()))
rng = random.Random(1)
trunk = tuple(rng.randrange(config.vocab_size) for _ in range(32_768))
samples = []
for call in range(64):
    response = (call,) + tuple(rng.randrange(config.vocab_size) for _ in range(63))
    n, m = len(trunk), len(response)
    streams = [(0.0,) * n + (value,) * m for value in (-6.5, 1.0 - call % 2 * 2)]
    samples.append(TrainSample(trunk + response, (False,) * n + (True,) * m, *streams))
learner = Learner(init_decoder(config, seed=1))
learner.begin_phase(PhaseConfig(kind="rl", optimizer=OptimizerConfig(lr=1e-4)))
started = time.process_time()
stats = learner.train_step(SampleBatch.from_samples(samples))
print(json.dumps({
    "cpu_seconds": time.process_time() - started,
    "peak_rss_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    "num_parameters": sum(one.numel() for one in learner.policy.parameters()),
    "num_flat_tokens": stats.num_flat_tokens,
    "num_forest_tokens": stats.num_forest_tokens,
    "computed_tokens": stats.extra["computed_tokens"],
    "flop_ratio": stats.flop_ratio,
    "loss": stats.loss,
}))
"""


@pytest.mark.timeout(1800)
def test_64_calls_on_a_trunk_of_32k_tokens_are_trained_within_4_gb(tmp_path):
    done = subprocess.run([sys.executable, "-c", STEP, str(tmp_path)], capture_output=True, text=True, check=True, timeout=1700)
    measured = json.loads(done.stdout)
    sys.stderr.write(done.stdout)
    assert measured["num_flat_tokens"] == 64 * (32_768 + 64)
    assert measured["num_forest_tokens"] == measured["computed_tokens"] == 32_768 + 64 * 64
    assert measured["peak_rss_bytes"] < 4e9
