"""A model to call, and rows of text that grow.

model            `Model`: parameters, configuration, every kind of run
rows             `Session`: what decoding sees of a model
slots            `Slots`: rows that join and leave between steps
implementation   the one place where an implementation is chosen
about            a model in a line and in a table
"""
