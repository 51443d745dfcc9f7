"""Works out in which order targets can be built."""

from buildorder.errors import BuildError, CycleError, UnknownTargetError
from buildorder.graph import Graph
from buildorder.planning import order
from buildorder.rules import read_rules

__all__ = ["BuildError", "CycleError", "Graph", "UnknownTargetError", "order", "read_rules"]
