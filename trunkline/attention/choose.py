"""Which attention kernel trains a tree layout on a device. Owns the choice; the kernels are blocks.py, levels.py, dense.py and flex.py."""

from __future__ import annotations

import torch

from trunkline.attention.base import TreeAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.dense import DenseAttend
from trunkline.attention.flex import FlexForestAttend
from trunkline.attention.layout import TreeLayout
from trunkline.attention.levels import LevelForestAttend, levels_of
from trunkline.errors import ConfigError

# Measured on an H100, 16 heads of 128, forward and backward in ms (docs/log.md). bf16, flash by levels / flex / dense mask: at 2,042
# keys .77 / 1.4 / .85, at 4,093 1.6 / 2.0 / 2.2, at 8,186 3.2 / 3.5 / 7.5, at 32,762 32 / 31 / none. So the levels are as fast as flex
# where the GPU is the limit, and faster where the host is; nothing is compiled, and a layout takes .2 ms for 2.6. fp32, flex / dense:
# at 1,021 keys 14 / 1.1, at 4,093 125 / 14; there memory sets the limit.
_FLEX_FROM_KEYS = 3072
_MOST_DENSE_PAIRS = 2**28  # in fp32: a mask of 1 GiB
_MOST_LEVELS = 8  # each passes once over the output
_FLEX_DTYPES = (torch.bfloat16, torch.float16, torch.float32)
_FLASH_CAPABILITY = (8, 0)


def check_trainable(device: torch.device) -> None:
    """Raises ConfigError where no kernel has a backward."""
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"tree attention trains on cpu and cuda, got device {str(device)!r}; choose one of these two")


def forest_attend(layout: TreeLayout, device: torch.device, dtype: torch.dtype) -> TreeAttend:
    """The fastest exact kernel for queries, keys and values of `dtype` on `device`.

    On CUDA in half precision, trees of few levels take flash kernels level by level, deeper ones FlexAttention. The dense
    mask, whose memory is tokens x keys, serves short layouts, fp32, and what FlexAttention lacks (fp64, for tests). Raises
    ConfigError on a device that cannot train.
    """
    check_trainable(device)
    if device.type == "cpu":
        return ForestAttend(layout)
    num_keys = layout.num_ancestors + layout.num_tokens
    if dtype == torch.float32:
        return FlexForestAttend(layout, device) if num_keys * layout.num_tokens > _MOST_DENSE_PAIRS else DenseAttend(layout, device)
    if dtype not in _FLEX_DTYPES:
        return DenseAttend(layout, device)
    if len(levels_of(layout)) <= _MOST_LEVELS and torch.cuda.get_device_capability(device) >= _FLASH_CAPABILITY:
        return LevelForestAttend(layout, device)
    return DenseAttend(layout, device) if num_keys < _FLEX_FROM_KEYS else FlexForestAttend(layout, device)
