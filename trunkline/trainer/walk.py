"""Forward and backward of a forest, in one pass or partition by partition, depth first. Owns what passes between partitions.

Keys and values are all that a partition's descendants read of it, for a row of logits belongs to the partition of the token
that predicts (its parent). So with partitions 1 and 2 below 0 the gradient is exact by the chain rule:

    enter 0: forward ── keys, values, detached ──► path ──► enter 1: forward ─ leave 1: backward of its loss ──┐
                                                     └────► enter 2: forward ─ leave 2: backward of its loss ──┤
    leave 0: backward of its loss and of its keys and values, given their gradients ◄──────────────────────────┘

Alive at once are the activations of the partitions entered and not left. With `recompute` a partition that others hang from
is run without activations on entering and again on leaving: then those of one partition are alive.
"""

# N forest tokens, P (for Attend: T) tokens of a partition, X exposed ones, A ancestors, Y the parent's share of them, L tokens of
# the longest path, H, K query and key/value heads, D head_dim, C hidden_size, M trained tokens of all samples, m those of a partition

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trunkline.attention.base import TreeAttend
from trunkline.attention.blocks import ForestAttend
from trunkline.attention.forest import Forest, Ints
from trunkline.attention.layout import TreeLayout
from trunkline.attention.partition import Partition, partition_forest
from trunkline.models.base import Policy
from trunkline.models.routing import Route, TopK
from trunkline.trainer.clock import Clock, Mark
from trunkline.trainer.logprobs import Targets, split_targets, trained_logprobs

PartOfLoss = Callable[[Tensor, Tensor], Tensor]
"""(log-probabilities of some trained tokens, their places among all of the step) -> their share of the loss."""
RouteFor = Callable[[Ints], Route]
"""Forest indices of the tokens of a pass -> who chooses their experts; asked twice about a layer, it must answer the same."""
Attention = Callable[[TreeLayout], TreeAttend]
"""The attention kernel for a layout, on the policy's device."""

_Pair = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Walked:
    """A forest's forward and backward; the gradients lie in the parameters, added to what was there."""

    logp_M: Tensor
    """Log-probability of each trained token, in flat order, detached."""
    num_computed_tokens: int
    """Tokens put through the model; more than the forest's where some were computed again."""
    num_partitions: int
    """1 if the forest was computed at once."""
    forward_seconds: float
    """Time of forward passes, and of cutting the forest; on CUDA the device's."""
    backward_seconds: float
    """Time of backward passes, without what was computed again before them."""


def walk(
    policy: Policy,
    forest: Forest,
    targets: Targets,
    part_of_loss: PartOfLoss,
    *,
    max_tokens: int,
    recompute: bool = False,
    route_for: RouteFor = lambda index_P: TopK(),
    attention: Attention = ForestAttend,
) -> Walked:
    """The gradient of a loss that is a sum over tokens, in partitions of at most `max_tokens` forest tokens.

    Args:
        policy: its parameters collect the gradients.
        forest: of all samples of the step.
        targets: its trained tokens.
        part_of_loss: called for the trained tokens of each partition; the shares add up to the loss.
        max_tokens: forest tokens of one pass; a forest within it takes one.
        recompute: hold the activations of one partition only, and compute those that others hang from twice.
        route_for: chooses the experts of a sparse policy.
        attention: makes the kernel.
    """
    run = _Run(policy, forest, targets, max_tokens=max_tokens, route_for=route_for, attention=attention)
    run.backward(part_of_loss, recompute=recompute)
    return run.result()


def walk_coupled(
    policy: Policy,
    forest: Forest,
    targets: Targets,
    loss_of_all: PartOfLoss,
    *,
    max_tokens: int,
    recompute: bool = False,
    route_for: RouteFor = lambda index_P: TopK(),
    attention: Attention = ForestAttend,
) -> Walked:
    """As `walk`, for a loss that couples tokens (a ratio a sequence): `loss_of_all` only ever gets all trained tokens, in order.

    Several partitions are walked twice: without gradients for all log-probabilities, then with the loss replaced by its
    derivative by each of them, which has the same gradient.
    """
    run = _Run(policy, forest, targets, max_tokens=max_tokens, route_for=route_for, attention=attention)
    if len(run.partitions) == 1:
        run.backward(loss_of_all, recompute=False)
        return run.result()
    run.forward()
    logp_M = run.logp_M().requires_grad_()
    (grad_M,) = torch.autograd.grad(loss_of_all(logp_M, torch.arange(len(logp_M), device=logp_M.device)), logp_M)
    run.backward(lambda logp_m, place_m: (grad_M[place_m] * logp_m).sum(), recompute=recompute)
    return run.result()


class _Rows:
    """Keys, or values, of one layer along the path from a root to the partition entered last, and their gradients so far."""

    def __init__(self, like_XKD: Tensor, length: int) -> None:
        self.values_LKD = like_XKD.new_empty(length, *like_XKD.shape[1:])
        self.grads_LKD = torch.zeros_like(self.values_LKD, dtype=torch.promote_types(like_XKD.dtype, torch.float32))

    def leaf(self, num_ancestors: int) -> Tensor:
        """The first rows, to be read by a pass; a gradient that reaches them is collected."""
        # .data: rows beyond these are overwritten while this leaf is alive, which is no reason for autograd to complain.
        leaf_AKD = self.values_LKD.data[:num_ancestors]
        if torch.is_grad_enabled():
            leaf_AKD.requires_grad_().register_post_accumulate_grad_hook(self._collect)
        return leaf_AKD

    def _collect(self, leaf_AKD: Tensor) -> None:
        assert leaf_AKD.grad is not None
        self.grads_LKD[: len(leaf_AKD)] += leaf_AKD.grad
        leaf_AKD.grad = None


@dataclass
class _Path:
    """The rows of every layer. A partition's are appended for each of its children, and taken off after it."""

    length: int
    """Most ancestors of any partition."""
    rows: dict[int, tuple[_Rows, _Rows]] = field(default_factory=dict)
    """Keys and values by layer, made when a layer first exposes any."""

    def append(self, parent: _Entered, path_Y: Tensor) -> None:
        start = parent.partition.layout.num_ancestors
        for layer, exposed in parent.exposed.items():
            if layer not in self.rows:
                self.rows[layer] = (_Rows(exposed[0], self.length), _Rows(exposed[1], self.length))
            for rows, x_XKD in zip(self.rows[layer], exposed, strict=True):
                torch.index_select(x_XKD.detach(), 0, path_Y, out=rows.values_LKD[start : start + len(path_Y)])

    def take_off(self, parent: _Entered, path_Y: Tensor) -> None:
        """Hands the gradients of the rows appended last over to the partition that they belong to."""
        start = parent.partition.layout.num_ancestors
        for layer, pair in self.rows.items():
            if layer not in parent.grads:
                keys, values = (rows.grads_LKD.new_zeros(len(parent.partition.exposed_X), *rows.grads_LKD.shape[1:]) for rows in pair)
                parent.grads[layer] = keys, values
            for rows, grad_XKD in zip(pair, parent.grads[layer], strict=True):
                grad_YKD = rows.grads_LKD[start : start + len(path_Y)]
                grad_XKD.index_add_(0, path_Y, grad_YKD)
                grad_YKD.zero_()


class _PartitionAttend:
    """Attend of one pass over one partition: gives the kernel the ancestors, and keeps what the partition exposes."""

    def __init__(self, entered: _Entered, path: _Path) -> None:
        self.exposed: dict[int, _Pair] = {}
        self._kernel, self._path = entered.kernel, path
        self._num_ancestors = entered.partition.layout.num_ancestors
        self._exposed_X = torch.from_numpy(entered.partition.exposed_X).to(entered.path_Y.device)
        self._leaves: dict[int, _Pair] = {}

    def __call__(self, layer: int, q_THD: Tensor, k_TKD: Tensor, v_TKD: Tensor) -> Tensor:
        """See Attend. A layer computed again in the backward pass comes a second time, and must find and leave all as it was."""
        if len(self._exposed_X):
            exposed = k_TKD.index_select(0, self._exposed_X), v_TKD.index_select(0, self._exposed_X)
            self.exposed.setdefault(layer, exposed)
        if not self._num_ancestors:
            return self._kernel(layer, q_THD, k_TKD, v_TKD)
        if layer not in self._leaves:
            keys, values = self._path.rows[layer]
            self._leaves[layer] = keys.leaf(self._num_ancestors), values.leaf(self._num_ancestors)
        return self._kernel(layer, q_THD, k_TKD, v_TKD, *self._leaves[layer])


@dataclass
class _Entered:
    """A partition entered and not left."""

    place: int
    """Its place in the list."""
    partition: Partition
    """It."""
    path_Y: Tensor
    """Its path_Y on the device."""
    kernel: TreeAttend
    """Its attention."""
    route: Route
    """Its experts."""
    exposed: dict[int, _Pair] = field(default_factory=dict)
    """Keys and values of its exposed tokens by layer, out of its latest pass, with their graph if that had one."""
    grads: dict[int, _Pair] = field(default_factory=dict)
    """Their gradients, from the descendants left so far."""
    loss: Tensor | None = None
    """Its share of the loss, with the graph of the pass; None before that, and where it predicts nothing."""


class _Run:
    """The walks over one forest."""

    def __init__(
        self, policy: Policy, forest: Forest, targets: Targets, *, max_tokens: int, route_for: RouteFor, attention: Attention
    ) -> None:
        self.policy, self.forest, self.route_for, self.attention = policy, forest, route_for, attention
        self.device = next(policy.parameters()).device
        self.clock = Clock(self.device)
        started = self.clock.mark()
        self.partitions = partition_forest(forest, max_tokens=max_tokens)
        self.shares = split_targets(targets, [partition.index_P for partition in self.partitions])
        self.path = _Path(max(partition.layout.num_ancestors for partition in self.partitions))
        self.logps: dict[int, Tensor] = {}
        self.num_computed_tokens = 0
        self.forward_spans: list[tuple[Mark, Mark]] = [(started, self.clock.mark())]
        self.backward_spans: list[tuple[Mark, Mark]] = []

    @torch.no_grad()
    def forward(self) -> None:
        """Log-probabilities alone."""
        started = self.clock.mark()
        above: list[_Entered] = []
        for place, is_entered in _in_order(self.partitions):
            if is_entered:
                above.append(self._enter(place, above))
                self._logprobs(above[-1])
            else:
                above.pop()
        self.forward_spans.append((started, self.clock.mark()))

    def backward(self, part_of_loss: PartOfLoss, *, recompute: bool) -> None:
        """Log-probabilities and gradients."""
        above: list[_Entered] = []
        for place, is_entered in _in_order(self.partitions):
            started = self.clock.mark()
            if is_entered:
                above.append(self._enter(place, above))
                if recompute and len(above[-1].partition.exposed_X):
                    with torch.no_grad():
                        self._hidden(above[-1])
                else:
                    self._loss(above[-1], part_of_loss)
                self.forward_spans.append((started, self.clock.mark()))
            else:
                left = above.pop()
                if recompute and len(left.partition.exposed_X):
                    self._loss(left, part_of_loss)
                computed = self.clock.mark()
                _backward(left)
                if above:
                    self.path.take_off(above[-1], left.path_Y)
                self.forward_spans.append((started, computed))
                self.backward_spans.append((computed, self.clock.mark()))

    def logp_M(self) -> Tensor:
        """Of all trained tokens, in order."""
        logp_M = torch.cat([self.logps[place] for place in range(len(self.partitions))])
        return torch.empty_like(logp_M).index_copy_(0, torch.cat([share.place_m for share in self.shares]).to(self.device), logp_M)

    def result(self) -> Walked:
        """What was done so far."""
        seconds = self.clock.seconds(self.forward_spans), self.clock.seconds(self.backward_spans)
        return Walked(self.logp_M(), self.num_computed_tokens, len(self.partitions), *seconds)

    def _enter(self, place: int, above: list[_Entered]) -> _Entered:
        partition = self.partitions[place]
        path_Y = torch.from_numpy(partition.path_Y).to(self.device)
        if above:
            self.path.append(above[-1], path_Y)
        return _Entered(place, partition, path_Y, self.attention(partition.layout), self.route_for(partition.index_P))

    def _hidden(self, entered: _Entered) -> Tensor:
        index_P = entered.partition.index_P
        self.num_computed_tokens += len(index_P)
        ids_P, positions_P = (torch.from_numpy(x[index_P]).to(self.device) for x in (self.forest.token_ids_N, self.forest.positions_N))
        attend = _PartitionAttend(entered, self.path)
        hidden_PC = self.policy(ids_P, positions_P, attend, entered.route)
        entered.exposed = attend.exposed
        return hidden_PC

    def _logprobs(self, entered: _Entered) -> Tensor:
        targets = self.shares[entered.place].targets.to(self.device)
        vocab_size = self.policy.config.vocab_size
        logp_m = trained_logprobs(self._hidden(entered), targets, logits=self.policy.logits, vocab_size=vocab_size)
        self.logps[entered.place] = logp_m.detach()
        return logp_m

    def _loss(self, entered: _Entered, part_of_loss: PartOfLoss) -> None:
        logp_m = self._logprobs(entered)
        if len(logp_m):
            entered.loss = part_of_loss(logp_m, self.shares[entered.place].place_m.to(self.device))


def _in_order(partitions: Sequence[Partition]) -> Iterator[tuple[int, bool]]:
    """(place of a partition, whether it is entered or left), depth first."""
    above: list[int] = []
    for place, partition in enumerate(partitions):
        while above and above[-1] != partition.parent:
            yield above.pop(), False
        above.append(place)
        yield place, True
    while above:
        yield above.pop(), False


def _backward(left: _Entered) -> None:
    """From the loss, and from the exposed keys and values given their gradients."""
    roots: list[Tensor] = [] if left.loss is None else [left.loss]
    grads: list[Tensor | None] = [None] * len(roots)
    for layer, pair in left.grads.items():
        for x_XKD, grad_XKD in zip(left.exposed[layer], pair, strict=True):
            if x_XKD.requires_grad:  # not if all below is frozen
                roots.append(x_XKD)
                grads.append(grad_XKD.to(x_XKD.dtype))
    if roots:
        torch.autograd.backward(roots, grads)
