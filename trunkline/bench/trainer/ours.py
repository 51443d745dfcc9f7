"""One process of `bench trainer`: this project's trainer on the material. Owns its measurement; prints one JSON object."""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

import numpy as np
import torch

from trunkline.attention.base import CausalAttend
from trunkline.bench.trainer.material import SHAPES, Shape
from trunkline.models.checkpoint import load_decoder
from trunkline.models.decoder import Decoder
from trunkline.trainer.batch import SampleBatch
from trunkline.trainer.config import LossConfig, OptimizerConfig, PhaseConfig
from trunkline.trainer.step import Learner
from trunkline.types import TrainSample


def _samples(shape: Shape, decoder: Decoder) -> list[TrainSample]:
    """As the gateway would have recorded them: with the log-probabilities of the policy that is trained."""
    rewards = np.array(shape.rewards()).reshape(shape.num_prompts, shape.group_size)
    advantages = (rewards - rewards.mean(axis=1, keepdims=True)).ravel()
    prompts, samples = shape.prompts(), []
    for index, completion in enumerate(shape.completions()):
        prompt = prompts[index // shape.group_size]
        tokens = np.concatenate((prompt, completion))
        with torch.no_grad():
            hidden_TC = decoder(torch.from_numpy(tokens), torch.arange(len(tokens)), CausalAttend())
            logp_TV = decoder.logits(hidden_TC).log_softmax(-1)
        recorded = logp_TV[len(prompt) - 1 : -1].gather(1, torch.from_numpy(completion).unsqueeze(1)).squeeze(1)
        before = (0.0,) * len(prompt)
        samples.append(
            TrainSample(
                token_ids=tuple(tokens.tolist()),
                mask=(False,) * len(prompt) + (True,) * len(completion),
                logprobs=before + tuple(recorded.tolist()),
                advantages=before + (float(advantages[index]),) * len(completion),
            )
        )
    return samples


def main(shape_name: str, folder: str, num_steps: str, gradient_path: str) -> None:
    """Trains; the first step is not timed, and its gradient is kept."""
    torch.set_num_threads(1)
    shape = next(shape for shape in SHAPES if shape.name == shape_name)
    decoder = load_decoder(Path(folder))
    samples = _samples(shape, decoder)
    learner = Learner(decoder)
    optimizer = OptimizerConfig(lr=1e-6, clip_norm=1e9)
    learner.begin_phase(PhaseConfig(kind="rl", optimizer=optimizer, loss=LossConfig(is_weight_cap=5.0)))
    seconds, stats = [], None
    for step in range(int(num_steps) + 1):
        started = time.process_time()
        stats = learner.train_step(SampleBatch.from_samples(samples))
        seconds.append(time.process_time() - started)
        if step == 0:
            gradients = {name: p.grad.clone() for name, p in decoder.named_parameters() if p.grad is not None}
            torch.save(gradients, gradient_path)
    assert stats is not None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tokens = int(stats.extra["computed_tokens"])
    sys.stdout.write(json.dumps({"seconds": seconds[1:], "peak_rss": peak, "tokens": tokens, "loss": stats.loss}))


if __name__ == "__main__":
    main(*sys.argv[1:])
