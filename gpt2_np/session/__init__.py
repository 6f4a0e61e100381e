"""A model to call, and rows of text that grow.

model            `Model`: parameters, configuration, every kind of run
rows             `Session`: what decoding sees of a model
implementation   the one place where an implementation is chosen
"""
