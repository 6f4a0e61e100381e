"""A model to call, and sessions: rows of text that grow step by step.

model            `Model`: parameters, configuration, every kind of run
rows             `Session`: what decoding sees of a model
first_layers     a model of a model's first layers
slots            `Slots`: rows that join and leave between steps
implementation   the one place where an implementation is chosen
about            a model in a line and in a table
"""
