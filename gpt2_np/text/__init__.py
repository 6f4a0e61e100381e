"""Text in, text out.

gpt2                 `GPT2`: a model, its tokenizer and the decoders, put together
tokenizer…           text to ids and back; its files, its special tokens
byte_level_bpe       the algorithm in plain Python; `added_tokens` are marks in a text, `own_tokenizer` is both together
tokenizers_library   the library of that name, whose twin `own_tokenizer` takes over where it isn't installed
generation_config    generation_config.json
constraints          regex, JSON schema, choice, grammar
dry_breakers         DRY's sequence breakers
scoring              how well a model predicts a text
"""
