"""A model to call, and rows of text that grow.

model   `Model`: parameters, configuration, runs; the one place where an implementation is chosen
rows    `Session`: what decoding sees of a model
"""
