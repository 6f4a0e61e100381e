"""How a text is found: token by token, by beams of every kind, with assistance, or by looking at everything."""
