"""The parts of `bench.py`: the engines that it compares, the rounds in which they take turns, and the report."""
