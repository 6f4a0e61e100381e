"""The pieces of train_bundled.py: text and tokenizer, the learning itself, and what is made of the result."""
