"""Processors, which change the model's scores before a token is chosen: one file per method, or per group of
methods.
"""
