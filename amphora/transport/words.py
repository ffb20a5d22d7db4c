"""Text from the command line and the environment, whatever the locale is."""

from __future__ import annotations

import os


def utf8_word(word: str) -> str:
    """Return a word of the command line or the environment, decoded as UTF-8.

    Python decodes such words by the locale.  In the C locale, without its UTF-8 mode, it decodes
    only ASCII and keeps other bytes as lone surrogates.

    Raises:
        ValueError: the bytes are not UTF-8.
    """
    if is_unicode(word):
        return word
    try:
        return os.fsencode(word).decode("utf-8")
    except UnicodeError:
        pass
    # The word is not shown: it may be a password.
    raise ValueError("it is not UTF-8")


def is_unicode(text: str) -> bool:
    """Return whether a text can be sent, that is, has no lone surrogates."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
