"""Windowed FIFO, groups, deadlines, journal. Owns no episode and no gradient."""
