"""GPT-2 as mathematics: read `forward` beside `ops`.

config, config_keys   config.json and its fields
choices               data types and backends, by name
params                the parameters, nested and named as in the checkpoint
ops                   every operation, in plain NumPy
operations, arrays    the types: an implementation of the operations; an array, and what stands for a matrix
forward               the whole model, a function of parameters and ids
cache                 keys and values of the positions already fed
taps, edits           observing and changing activations, by TransformerLens's names
activations           what a run captured, and its decompositions
ids, overflow         what ids and logits must be
"""
