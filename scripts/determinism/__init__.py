"""What `scripts/measure_determinism.py` is made of: `answers` of a model, `trained` weights, and how they compare."""
