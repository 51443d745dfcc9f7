"""Variants of mined tasks: faults injected, changes merged, tasks turned round."""
