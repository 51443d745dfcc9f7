"""Computing in bf16 with fp32 master weights. Owns the exchange of weights and gradients around a computation; no optimiser, no loss.

    fp32 masters ─► bf16 copies ─► forward, backward ─► bf16 gradients ─► fp32 sums ─┐
         ▲                                              (each freed at once)         │
         └── optimiser, clipping, checkpoint, publishing: all outside, all fp32 ◄────┘

A policy is its masters: only inside `computing_in` do its parameters hold narrower values. So no other part of the trainer
has to know, and a step too small for bf16 (8 bits) is not lost. Output head and router stay in fp32 (MiniMax-M1, arXiv
2506.13585, quoted: an fp32 head raised the correlation of trainer's and sampler's probabilities from about 0.90 to 0.99);
log-probabilities, losses and statistics are fp32 everywhere. On CUDA the products of head and router take TF32: what they are
multiplied with is bf16 and passes unrounded, the weights keep 11 bits of 24, and a head takes a quarter of the time.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from trunkline.errors import ConfigError
from trunkline.models.base import Policy


@contextmanager
def computing_in(policy: Policy, dtype: torch.dtype) -> Iterator[None]:
    """Inside, the policy's forward and backward passes run in `dtype`; free where its weights have that dtype already.

    Gradients appear in the parameters at the end, in the masters' precision, the sum over all backward passes within and of
    what was there before. Backward passes belong inside; clear gradients outside.

    >>> policy.zero_grad()
    >>> with computing_in(policy, torch.bfloat16):
    ...     loss(policy(token_ids_T, positions_T, attend)).backward()
    >>> optimizer.step()

    Raises ConfigError if weights are narrower than `dtype`.
    """
    named = dict(policy.named_parameters())
    if all(parameter.dtype == dtype for parameter in named.values()):
        yield
        return
    narrow = [name for name, parameter in named.items() if parameter.dtype.itemsize < dtype.itemsize]
    if narrow:
        raise ConfigError(f"weights such as {narrow[0]} are narrower than {dtype}, in which they should compute; load the model in {dtype}")
    exact = {id(parameter) for parameter in policy.full_precision_parameters()}
    lowered = [parameter for parameter in named.values() if parameter.dtype != dtype and id(parameter) not in exact]
    masters = [parameter.data for parameter in lowered]
    sums = {id(parameter): (parameter.grad, parameter.dtype) for parameter in lowered}

    def add_up(parameter: Tensor) -> None:
        gradient, (so_far, wide) = parameter.grad, sums[id(parameter)]
        assert gradient is not None
        sums[id(parameter)] = (gradient.to(wide) if so_far is None else so_far.add_(gradient), wide)
        parameter.grad = None

    hooks = [parameter.register_post_accumulate_grad_hook(add_up) for parameter in lowered if parameter.requires_grad]
    copies = [torch.empty_like(master, dtype=dtype) for master in masters]
    if copies:
        torch._foreach_copy_(copies, masters)
    allowed = torch.backends.cuda.matmul.allow_tf32
    try:
        _exchange(lowered, copies, [None] * len(lowered))
        torch.backends.cuda.matmul.allow_tf32 = allowed or dtype != torch.float32
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
        for hook in hooks:
            hook.remove()
        _exchange(lowered, masters, [sums[id(parameter)][0] for parameter in lowered])


def _exchange(parameters: list[nn.Parameter], values: list[Tensor], gradients: list[Tensor | None]) -> None:
    for parameter, value, gradient in zip(parameters, values, gradients, strict=True):
        parameter.grad = None  # torch lets no gradient of another dtype stand beside the values
        parameter.data = value
        parameter.grad = gradient
