"""Parity with torch: each check reports the largest difference, its place, and each side's distance from float64."""

from .checks import Check, numbers
from .suite import PROMPTS, Case, run

__all__ = ["PROMPTS", "Case", "Check", "numbers", "run"]
