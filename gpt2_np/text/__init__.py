"""Text in, text out.

gpt2                 `GPT2`: a model, its tokenizer and the decoders, put together
requests             what callers ask for, as decoders take it: prompts to ids, text to options
stopping, results    what ends a text; what comes out
continuations        what is scored behind a prompt
scoring              how well a model predicts a text
tokenizer…           text to ids and back; its files, its special tokens
generation_config    generation_config.json
constraints          regex, JSON schema, choice, grammar
dry_breakers         DRY's sequence breakers
save                 a folder as transformers saves it
"""
