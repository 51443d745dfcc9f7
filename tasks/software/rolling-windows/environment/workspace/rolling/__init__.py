"""Statistics of a window that moves over a sequence."""

from rolling.extremes import rolling_max, rolling_min, rolling_peaks
from rolling.median import rolling_median
from rolling.windows import windows

__all__ = ["rolling_max", "rolling_median", "rolling_min", "rolling_peaks", "windows"]
