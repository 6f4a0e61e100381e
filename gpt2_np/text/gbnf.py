"""GBNF, llama.cpp's notation for grammars, translated to the constraint library's variant of Lark.

The library's own converter does the work. Three things that it would misread are rewritten first: code points as
``\\uXXXX``, whose leading zeros it strips; ``.``, which is any character in GBNF but excludes line ends in Lark; and
comments.
"""

from __future__ import annotations

import re

RULE = re.compile(r"^[ \t]*[A-Za-z0-9_-]+[ \t]*::=", re.MULTILINE)
# A literal, a class of characters, a comment, or any character.
PIECE = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\r\n]*|\.', re.DOTALL)
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)


def is_gbnf(text: str) -> bool:
    """Tell whether a grammar has a rule in GBNF's form, ``name ::= …``, which doesn't occur in Lark's syntax."""
    return RULE.search(text) is not None


def to_lark(text: str) -> str:
    """Translate a GBNF grammar, whose start is the rule ``root``, to the library's variant of Lark, whose start is
    ``start``.

    Rules that refer only to rules of the same kind become terminals, which match as much text as they can.
    ``ValueError`` for anything that the converter can't read.
    """
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return str(gbnf_to_lark(PIECE.sub(_rewritten, text)))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except IndexError:  # raised by the converter after a trailing backslash
        raise ValueError("unexpected end of input") from None
    except Exception as error:  # the converter raises plain Exception
        raise ValueError(" ".join(str(error).split())) from None


def _rewritten(found: re.Match[str]) -> str:
    piece = found.group()
    if piece.startswith("#"):
        return ""
    return r"(. | [\n])" if piece == "." else ESCAPE.sub(_spelled, piece)


def _spelled(found: re.Match[str]) -> str:
    """Return an escaped code point as the character itself, or as ``\\xXX`` where the character is special in a
    regex.
    """
    digits = next((one for one in found.groups() if one), None)
    if digits is None:
        return found.group()
    code = int(digits, 16)
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        raise ValueError(f"{found.group()} is no character")
    return chr(code)
