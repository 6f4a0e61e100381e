"""The compiled twins of `ops`: same names, same signatures, Numba loops where they pay."""

from ..model import forward as forward
from ..ops import *  # noqa: F403
