"""The parts of train_bundled.py: text and tokenizer, the training itself, and the report."""
