"""What keeps a file from being read as text in UTF-8."""

from __future__ import annotations

import codecs


def text_fault(content: bytes) -> str:
    """Why the beginning of a file cannot be used as text, and what to do; empty if it may be."""
    if not content.strip():
        return "the file is empty; write it again"
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or content[:2].count(0) == 1:
        return "its text is UTF-16; save it as UTF-8"
    return ""
