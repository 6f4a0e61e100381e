"""A repr of one line for classes that hold the state of a search or of a random stream."""

from __future__ import annotations

SIMPLE = (bool, int, float, str, type(None))


class Readable:
    """Give a class a repr: its name, its plain attributes, and how many there are in each of its collections.

    >>> class Stream(Readable):
    ...     def __init__(self):
    ...         self.seed, self.drawn, self.texts = 3, 0, [[1], [2]]
    >>> Stream()
    Stream(seed=3, drawn=0, texts=2 items)
    """

    def __repr__(self) -> str:
        shown = []
        for name, value in vars(self).items():
            if not name.startswith("_") and isinstance(value, SIMPLE):
                shown.append(f"{name}={value!r}")
            elif not name.startswith("_") and isinstance(value, (list, tuple, dict, set)):
                shown.append(f"{name}={len(value)} items")
        return f"{type(self).__name__}({', '.join(shown)})"
