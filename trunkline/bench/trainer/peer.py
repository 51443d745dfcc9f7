"""One process of `bench trainer`: TRL's GRPOTrainer on the material, unmodified. Owns its set-up and its clock; prints one JSON object.

Completions are handed in through TRL's own rollout_func, so that nothing is generated. What is timed is everything between the
prepared inputs and the end of the optimiser step: TRL's forward, loss, backward and AdamW.
"""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from trunkline.bench.trainer.material import SHAPES, VOCAB, Shape


class _Clock(TrainerCallback):
    """CPU-seconds of each optimiser step, less those that went into its inputs."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.inputs = 0.0
        self._started = 0.0

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._started, self.inputs = time.process_time(), 0.0

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(time.process_time() - self._started - self.inputs)


class _Trainer(GRPOTrainer):
    """Tells the clock what its inputs take, counts what the model is given, keeps the first gradient."""

    clock: _Clock
    gradient_path: str
    num_tokens = 0

    def _prepare_inputs(self, generation_batch: Any) -> Any:
        started = time.process_time()
        inputs = super()._prepare_inputs(generation_batch)
        self.clock.inputs += time.process_time() - started
        return inputs

    def _get_per_token_logps_and_entropies(self, model: Any, input_ids: Any, *args: Any, **kwargs: Any) -> Any:
        type(self).num_tokens += input_ids.numel()
        return super()._get_per_token_logps_and_entropies(model, input_ids, *args, **kwargs)


class _KeepGradient(TrainerCallback):
    """Writes the gradient of the first step before the optimiser sees it."""

    def __init__(self, path: str) -> None:
        self._path: str | None = path

    def on_pre_optimizer_step(self, *_: Any, **given: Any) -> None:
        if self._path is not None:
            torch.save({name: p.grad.clone() for name, p in given["model"].named_parameters() if p.grad is not None}, self._path)
            self._path = None


def _tokenizer() -> PreTrainedTokenizerFast:
    words = {"<pad>": 0, "<bos>": 1, "<eos>": 2, **{f"t{index}": index for index in range(3, VOCAB)}}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<pad>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>")


def _trainer(shape: Shape, folder: str, num_steps: int, micro_batch: int, output: Path) -> _Trainer:
    prompts, completions, rewards = shape.prompts(), shape.completions(), shape.rewards()
    texts = [" ".join(f"t{token}" for token in prompt) for prompt in prompts]
    place = {text: index for index, text in enumerate(texts)}

    def rollout(asked: list[str], trainer: Any) -> dict[str, Any]:
        seen: dict[int, int] = {}
        chosen = []
        for text in asked:
            group = place[text]
            chosen.append(group * shape.group_size + seen.setdefault(group, 0))
            seen[group] += 1
        return {
            "prompt_ids": [prompts[index // shape.group_size].tolist() for index in chosen],
            "completion_ids": [completions[index].tolist() for index in chosen],
            "logprobs": None,
            "place": chosen,
        }

    def reward(place: list[int], **_: Any) -> list[float | None]:
        return [rewards[index] for index in place]

    config = GRPOConfig(
        output_dir=str(output),
        use_cpu=True,
        bf16=False,
        beta=0.0,
        loss_type="cispo",
        epsilon_high=5.0,
        scale_rewards="none",
        num_generations=shape.group_size,
        per_device_train_batch_size=micro_batch,
        gradient_accumulation_steps=shape.num_samples // micro_batch,
        max_completion_length=shape.completion,
        max_steps=num_steps + 1,
        learning_rate=1e-6,
        lr_scheduler_type="constant",
        max_grad_norm=0.0,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        shuffle_dataset=False,
        disable_tqdm=True,
    )
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    dataset = Dataset.from_dict({"prompt": texts * (num_steps + 1)})
    return _Trainer(
        model=model, reward_funcs=reward, args=config, train_dataset=dataset, processing_class=_tokenizer(), rollout_func=rollout
    )


def main(shape_name: str, folder: str, num_steps: str, gradient_path: str, micro_batch: str) -> None:
    """Trains; the first step is not timed, and its gradient is kept."""
    torch.set_num_threads(1)
    shape = next(shape for shape in SHAPES if shape.name == shape_name)
    clock = _Clock()
    with contextlib.redirect_stdout(io.StringIO()):
        trainer = _trainer(shape, folder, int(num_steps), int(micro_batch), Path(gradient_path).with_suffix(".out"))
        trainer.clock = clock
        trainer.add_callback(clock)
        trainer.add_callback(_KeepGradient(gradient_path))
        trainer.train()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    tokens = _Trainer.num_tokens // (int(num_steps) + 1)
    sys.stdout.write(json.dumps({"seconds": clock.seconds[1:], "peak_rss": peak, "tokens": tokens}))


if __name__ == "__main__":
    main(*sys.argv[1:])
