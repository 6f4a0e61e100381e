"""Decoding strategies in pure NumPy: they know neither text nor GPT-2, only a Stepper."""
