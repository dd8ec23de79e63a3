"""Reads pages in HTML: elements, what they hold, and whether they nest."""

from html.parser import HTMLParser

_ALONE = frozenset({"meta", "img", "br", "link"})


class Element:
    """An element of a page."""

    def __init__(self, tag, attributes):
        self.tag, self.attributes, self.inside = tag, dict(attributes), []

    def all(self, tag=None):
        """Elements below this one, in their order."""
        below = [found for part in self.inside if isinstance(part, Element) for found in (part, *part.all())]
        return [found for found in below if tag in (None, found.tag)]

    def one(self, tag):
        """The first such element below this one."""
        return self.all(tag)[0]

    @property
    def text(self):
        """What it says."""
        return "".join(part if isinstance(part, str) else f" {part.text} " for part in self.inside)

    @property
    def words(self):
        """What it says, in one line."""
        return " ".join(self.text.split())


class _Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.open = [Element("", {})]

    def handle_starttag(self, tag, attrs):
        element = Element(tag, attrs)
        self.open[-1].inside.append(element)
        if tag not in _ALONE:
            self.open.append(element)

    def handle_startendtag(self, tag, attrs):
        self.open[-1].inside.append(Element(tag, attrs))

    def handle_endtag(self, tag):
        assert self.open.pop().tag == tag

    def handle_data(self, data):
        self.open[-1].inside.append(data)


def read(file):
    """The page in a file."""
    reader = _Reader()
    reader.feed(file.read_text(encoding="utf-8"))
    [root] = reader.open
    return root
