"""Text in, text out.

gpt2                 `GPT2`: a model together with its tokenizer and the decoders
requests             from callers' requests to decoders' options: prompts to ids, texts in options to ids
stopping, results    conditions that end a text; the result of decoding
continuations        continuations to be scored after a prompt
scoring              how well a model predicts a text
lines, many          lines of text or JSON; jobs that are read from them, batched and answered
tokenizer…           text to ids and back; the tokenizer's files and special tokens
byte_level_bpe       the algorithm in plain Python
added_tokens         special tokens within a text
own_tokenizer        the last two together: the twin of `tokenizers_library`, used where that package is missing
tokenizers_library   the tokenizer by Hugging Face's `tokenizers` package
generation_config    generation_config.json
constraints          regular expressions, JSON schemas, choices, grammars; `gbnf` reads llama.cpp's grammars
distinct             beams under a choice: each text once, however tokens spell it
dry_breakers         DRY's sequence breakers
healing              token healing: the prompt's last token is removed and generated again
assistants           draft models, by name or as a model
translation          draft models with another vocabulary
save                 saving a folder as transformers saves it
"""
