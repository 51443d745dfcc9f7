"""Which attention kernel trains a tree layout on a device. Owns the choice; the kernels are blocks.py, dense.py and flex.py."""

from __future__ import annotations

import torch

from trunkline.attention.base import TreeAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.dense import DenseAttend
from trunkline.attention.flex import FlexForestAttend
from trunkline.attention.layout import TreeLayout
from trunkline.errors import ConfigError

# Quoted, not measured by us: FlexAttention over dense-mask attention on an H200 is 0.72x at 512 tokens, 1.31x at 2,048 and
# 2.34x at 8,192 (KempnerForge #207).
_FLEX_FROM_KEYS = 1024
_FLEX_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def check_trainable(device: torch.device) -> None:
    """Raises ConfigError where no kernel has a backward."""
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"tree attention trains on cpu and cuda, got device {str(device)!r}; choose one of these two")


def forest_attend(layout: TreeLayout, device: torch.device, dtype: torch.dtype) -> TreeAttend:
    """The fastest exact kernel for queries, keys and values of `dtype` on `device`.

    On CUDA, short layouts and precisions that FlexAttention lacks (fp64, for tests) take the dense mask, whose memory is
    tokens x keys. Raises ConfigError on a device that cannot train.
    """
    check_trainable(device)
    if device.type == "cpu":
        return ForestAttend(layout)
    if layout.num_ancestors + layout.num_tokens < _FLEX_FROM_KEYS or dtype not in _FLEX_DTYPES:
        return DenseAttend(layout, device)
    return FlexForestAttend(layout, device)
