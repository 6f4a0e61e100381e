"""The parts of `scripts/measure_determinism.py`: `answers` of a model, `trained` weights, and their comparison."""
