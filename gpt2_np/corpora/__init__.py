"""Corpora larger than a machine: every row scored, continued, or its activations captured, by one process or many.

run          `score`, `generate`, `capture`: from files to a folder of shards; `Engine`, `Result`
inputs       files cut into parts, and read part by part
job          what a run is, told to every worker
folder       OUT: for one run alone, and gone on with
work         what is done with one part                 shards    what came of it, in one file
models       a run's model in each worker, in memory once a machine
captures     what captures need besides
local        one process                                on_ray    Ray Data's actors, on many machines
merging      folders of parts put together, and statistics: lenses, a dictionary's figures
packages     Arrow and Ray, which are extras
"""

from .merging import Merged, merge
from .run import Engine, Result, capture, generate, score

__all__ = ["Engine", "Merged", "Result", "capture", "generate", "merge", "score"]
