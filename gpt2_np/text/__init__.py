"""Text in, text out.

gpt2                 `GPT2`: a model, its tokenizer and the decoders, put together
requests             what callers ask for, as decoders take it: prompts to ids, text to options
stopping, results    what ends a text; what comes out
continuations        what is scored behind a prompt
scoring              how well a model predicts a text
lines, many          lines of text or JSON; many of them read, put into batches and answered
tokenizer…           text to ids and back; its files, its special tokens
byte_level_bpe       the algorithm in plain Python; `added_tokens` are marks in a text, `own_tokenizer` is both together
tokenizers_library   the library of that name, whose twin `own_tokenizer` takes over where it isn't installed
generation_config    generation_config.json
constraints          regex, JSON schema, choice, grammar; `gbnf` is grammars in llama.cpp's notation
distinct             beams under a choice: each text once, however tokens spell it
dry_breakers         DRY's sequence breakers
healing              token healing: a prompt's last token taken back and regrown
assistants           draft models, by name or as a model
translation          draft models of another vocabulary
save                 a folder as transformers saves it
"""
