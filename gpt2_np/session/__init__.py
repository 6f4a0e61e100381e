"""A model to call, and sessions: rows of text that grow step by step.

model            `Model`: parameters, configuration, every kind of run
rows             `Session`: the model's interface for decoding
first_layers     a model made of another model's first layers
slots            `Slots`: rows that join and leave between steps
implementation   the one place where an implementation is chosen
about            the description of a model, in one line and as a table
"""
