"""The base of decoding: errors, the model's interface, ranking, value types, statements of methods, readable reprs."""
