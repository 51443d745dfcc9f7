"""What an attention kernel has to know of a run of forest tokens: nodes in pre-order, and how many ancestors precede them. No torch.

The run is a forest of its own, which may hang below the end of a longer path: its ancestors, which all of its tokens see.

    ancestors  0 1 2 ─┬─ 0 1 ─┬─ 2 3     3 ancestor keys, 6 local tokens; local key k is visible to local query q iff
                      │       └─ 4       k <= q < subtree_end(k), and every ancestor key is visible to every query
                      └─ 5
"""

# U nodes

from __future__ import annotations

from dataclasses import dataclass

from trunkline.attention.forest import Forest, Ints


@dataclass(frozen=True, eq=False)
class TreeLayout:
    """Nodes of local tokens 0 .. num_tokens - 1, in pre-order and without gaps."""

    node_start_U: Ints
    """First own token of each node."""
    node_end_U: Ints
    """One past the node's last own token; the next node's start."""
    node_subtree_end_U: Ints
    """One past the last local token below the node; equal to node_end_U at a leaf."""
    num_ancestors: int = 0
    """A, the keys outside that all local tokens see, given to the kernel as tensors of their own."""

    @property
    def num_tokens(self) -> int:
        """T, the local tokens: queries, and keys too."""
        return int(self.node_end_U[-1])

    @classmethod
    def of(cls, forest: Forest) -> TreeLayout:
        """A whole forest, without ancestors."""
        return cls(forest.node_start_U, forest.node_end_U, forest.node_subtree_end_U)
