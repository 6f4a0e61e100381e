"""Searches, which write texts: token by token, by beams of every kind, with assistance, or exhaustively."""
