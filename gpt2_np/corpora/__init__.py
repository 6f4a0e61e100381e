"""Corpora larger than a machine: every row is scored, continued, or captured, by one process or by many.

run          `score`, `generate`, `capture`: from files to a folder of shards; `Engine`, `Result`
inputs       input files, cut into parts and read part by part
job          the description of a run, which every worker receives
folder       the output folder, which belongs to one run and can be resumed
work         the work on one part
shards       the result of one part, in one file
models       the run's model in each worker, in memory once per machine
captures     the further files of captures
local        the engine that is one process
on_ray       the engine of Ray Data's actors, on many machines
merging      merging folders of parts, and statistics: lenses, a dictionary's figures
packages     Arrow and Ray, which are extras
"""

from .merging import Merged, merge
from .run import Engine, Result, capture, generate, score

__all__ = ["Engine", "Merged", "Result", "capture", "generate", "merge", "score"]
