"""Is it the same as torch? Each check tells the largest difference, its place, and each side's distance from truth."""

from .checks import Check, numbers
from .suite import PROMPTS, Case, run

__all__ = ["PROMPTS", "Case", "Check", "numbers", "run"]
