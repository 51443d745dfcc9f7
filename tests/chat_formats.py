"""The model families' chat formats on byte-level vocabularies built here: the real renderers, no model. Owns no test."""

from __future__ import annotations

from typing import Any

from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from trunkline.gateway.packaged import PackagedRenderer, load_packaged_renderer

_THINK = ["<think>", "</think>"]
_QWEN = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>", *_THINK]
_GLM = ["[gMASK]", "<sop>", "<|system|>", "<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>", "<tool_call>", "</tool_call>"]
_GLM += ["<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>", "<tool_response>", "</tool_response>", *_THINK]
_LLAMA = ["<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>"]
_KIMI = ["<|im_end|>", "<|im_user|>", "<|im_assistant|>", "<|im_system|>", "<|im_middle|>", "<|tool_calls_section_begin|>"]
_KIMI += ["<|tool_calls_section_end|>", "<|tool_call_begin|>", "<|tool_call_argument_begin|>", "<|tool_call_end|>"]
MARKS = {
    "minimax-m2": ["]~!b[", "]~b]", "[e~[", "<minimax:tool_call>", "</minimax:tool_call>", *_THINK],
    "qwen3": _QWEN,
    "qwen3.5": [*_QWEN, "<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>"],
    "llama-3": _LLAMA,
    "glm-4.5": _GLM,
    "glm-5": _GLM,
    "kimi-k2": _KIMI,
}
THINKING = ("minimax-m2", "qwen3", "qwen3.5", "glm-4.5", "glm-5")


def family(name: str) -> tuple[PackagedRenderer, Any]:
    """A family's renderer and its tokenizer, one token a byte and one a mark."""
    alphabet = {letter: place for place, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    backend = Tokenizer(models.BPE(vocab=alphabet, merges=[]))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    backend.add_special_tokens([mark for mark in MARKS[name] if "tool" not in mark and "think" not in mark])
    backend.add_tokens(MARKS[name])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend)
    return load_packaged_renderer(name, tokenizer), tokenizer
