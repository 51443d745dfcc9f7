"""Makes a randomly initialised policy folder. Owns the wiring of sizes, tokenizer and weights; runs as its own short process.

The conductor stays free of torch, so it calls `python -m trunkline.run.scratch FOLDER --seed N` on a folder that already
holds config.json and the tokenizer.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from trunkline.gateway.markup import TINY
from trunkline.models.config import DecoderConfig
from trunkline.models.tokenizer import Tokenizer, build_tiny_tokenizer
from trunkline.run.recipe import ScratchModel


def prepare_folder(folder: Path, sizes: ScratchModel, *, pieces: tuple[str, ...], characters: str) -> Tokenizer:
    """Writes the tokenizer of a taskset's vocabulary and a config.json of these sizes; returns the tokenizer."""
    tokenizer = build_tiny_tokenizer(special_tokens=TINY.special_tokens, pieces=pieces, characters=characters)
    head_dim = sizes.hidden_size // sizes.num_heads
    family: dict[str, Any] = {"qk_norm": "head"}
    if sizes.num_experts:  # as in the released MiniMax-M2, half of each head turns
        family = {
            "qk_norm": "full",
            "rotary_dim": head_dim // 2,
            "num_experts": sizes.num_experts,
            "experts_per_token": sizes.experts_per_token,
        }
    config = DecoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_layers=sizes.num_layers,
        num_heads=sizes.num_heads,
        num_kv_heads=sizes.num_kv_heads,
        head_dim=head_dim,
        rope_theta=sizes.rope_theta,
        rms_norm_eps=1e-6,
        **family,
        tie_embeddings=False,
        max_positions=sizes.max_positions,
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(folder)
    (folder / "config.json").write_text(json.dumps(config.to_hf(), indent=2))
    return tokenizer


def main() -> None:
    """Initialises weights from FOLDER/config.json and saves them beside it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, required=True)
    arguments = parser.parse_args()

    from trunkline.models.checkpoint import init_decoder, save_decoder  # torch: only in this short process

    config = DecoderConfig.from_hf(json.loads((arguments.folder / "config.json").read_text()))
    save_decoder(init_decoder(config, seed=arguments.seed), arguments.folder)


if __name__ == "__main__":
    main()
