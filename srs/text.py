"""Words of others, such as the names of files, where people read them."""


def visible(text: str) -> str:
    """Return a text in one line, with what no terminal shows, or would obey, as escapes.

    Names of files may hold control characters, line breaks, and bytes that are no text.
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
