"""GPT-2 in NumPy: the same tokens as torch, without torch."""
