"""Reflows plain text: paragraphs, quotations and lists are broken anew to a given width."""

from reflow.blocks import Block, split_blocks
from reflow.document import reflow
from reflow.lines import justify, wrap

__all__ = ["Block", "justify", "reflow", "split_blocks", "wrap"]
