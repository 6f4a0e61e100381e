"""Text in, text out.

gpt2                 `GPT2`: a model, its tokenizer and the decoders, put together
tokenizer…           text to ids and back; its files, its special tokens
generation_config    generation_config.json
constraints          regex, JSON schema, choice, grammar
dry_breakers         DRY's sequence breakers
scoring              how well a model predicts a text
"""
