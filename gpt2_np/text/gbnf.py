"""GBNF, llama.cpp's notation of grammars, as the constraints' library reads it: in its variant of Lark's.

The library's own converter does the work. What it would misread is rewritten before: code points as ``\\uXXXX``, from
which it strips leading zeros; ``.``, which is any character in GBNF and none at the end of a line in Lark; comments.
"""

from __future__ import annotations

import re

RULE = re.compile(r"^[ \t]*[A-Za-z0-9_-]+[ \t]*::=", re.MULTILINE)
# A literal, a class of characters, a comment, or any character.
PIECE = re.compile(r'"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|#[^\r\n]*|\.', re.DOTALL)
ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|.)", re.DOTALL)


def is_gbnf(text: str) -> bool:
    """Whether a grammar has a rule as GBNF writes it, ``name ::= …``, which Lark's syntax has nowhere."""
    return RULE.search(text) is not None


def to_lark(text: str) -> str:
    """A grammar in GBNF, from the rule ``root``, in the library's variant of Lark's syntax, from ``start``.

    Rules that name no rule but such ones become terminals, each of which takes as much text as it can.
    ``ValueError`` for what the converter doesn't read.
    """
    from llguidance.gbnf_to_lark import gbnf_to_lark

    try:
        return str(gbnf_to_lark(PIECE.sub(_rewritten, text)))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except IndexError:  # the converter's, behind a last backslash
        raise ValueError("unexpected end of input") from None
    except Exception as error:  # it raises Exception itself
        raise ValueError(" ".join(str(error).split())) from None


def _rewritten(found: re.Match[str]) -> str:
    piece = found.group()
    if piece.startswith("#"):
        return ""
    return r"(. | [\n])" if piece == "." else ESCAPE.sub(_spelled, piece)


def _spelled(found: re.Match[str]) -> str:
    """An escaped code point as the character itself, or as ``\\xXX`` where that might mean something in a regex."""
    digits = next((one for one in found.groups() if one), None)
    if digits is None:
        return found.group()
    code = int(digits, 16)
    if code < 0x80:
        return f"\\x{code:02x}"
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        raise ValueError(f"{found.group()} is no character")
    return chr(code)
