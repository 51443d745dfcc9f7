"""Numbers out of a run: JSONL, console, process accounting. Owns no meaning of the numbers."""
