"""GPT-2 as mathematics: read `forward` beside `ops`.

config, config_keys   config.json and its fields
choices               data types and backends, by name
params                the parameters, nested and named as in the checkpoint
ops                   every operation, in plain NumPy
operations, arrays    types: the protocol of an implementation; an array, and what may stand in for a matrix
forward               the whole model, as a function of parameters and ids
cache                 the key/value cache: keys and values of the positions that were already fed
taps, edits           observing and changing activations, by TransformerLens's names
activations           the activations that a run captured, and decompositions of them
ids, overflow         checks of ids and of logits
"""
