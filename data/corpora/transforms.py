"""From a package's file to documents: one function a format, each `(source, name, text) -> [document, ..]`.

`build.py` picks the function named by a source's `transform`, then cleans and measures what comes back.
"""
import csv
import html.parser
import json
import re
import zlib

from sources import LONG_LANGUAGES

LONG_CHARS, SHORT_CHARS = 2_100, 430  # characters kept of a declaration: the main languages, the others


class PlainText(html.parser.HTMLParser):
    """Text of an HTML page: one paragraph a block, blanks collapsed outside `pre`, navigation left out."""

    VOID = {"br", "img", "hr", "link", "meta", "input"}
    BLOCK = {"p", "div", "li", "h1", "h2", "h3", "h4", "h5", "h6", "tr", "pre", "dt", "dd", "ul", "ol", "header", "article"}
    SKIP_TAGS = {"head", "script", "style"}
    SKIP_MARKS = {"docnav", "docnav top", "toc", "banner", "indexterm"}  # class, or id

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.out, self.open, self.skipped, self.pre = [], [], 0, 0

    def handle_starttag(self, tag, attrs):
        if tag in self.VOID:
            return
        marks = dict(attrs)
        skip = tag in self.SKIP_TAGS or bool({marks.get("class"), marks.get("id")} & self.SKIP_MARKS)
        skip = skip or (tag == "p" and marks.get("id") == "title")
        self.open.append((tag, skip))
        self.skipped += skip
        self.pre += tag == "pre"
        self.out.append("\n\n" if tag in self.BLOCK else "")

    def handle_endtag(self, tag):
        if tag in self.VOID or not any(t == tag for t, _ in self.open):
            return
        while self.open:
            last, skip = self.open.pop()
            self.skipped -= skip
            self.pre -= last == "pre"
            if last == tag:
                break
        self.out.append("\n\n" if tag in self.BLOCK else "")

    def handle_data(self, data):
        if not self.skipped:
            self.out.append(data if self.pre else re.sub(r"\s+", " ", data))


def plain(page):
    """The page's paragraphs, in order."""
    parser = PlainText()
    parser.feed(page)
    lines = re.sub(r"[ \t]+\n", "\n", "".join(parser.out))
    lines = re.sub(r"\n\n +", "\n\n", lines)
    return [p.strip("\n ") for p in re.split(r"\n{2,}", lines) if p.strip()]


def text(source, name, content):
    return [content]


def handbook(source, name, content):
    return ["\n\n".join(plain(content))]


def declaration(source, name, content):
    """The opening of the declaration in a main language; in another, a few articles, not the same for each."""
    paragraphs = plain(content)
    code = name.rsplit("/", 1)[-1].removesuffix(".html")
    start, want = 0, LONG_CHARS
    if code.split("_")[0] not in LONG_LANGUAGES:
        start, want = zlib.crc32(code.encode()) % max(1, len(paragraphs) * 2 // 3), SHORT_CHARS
    kept = []
    for paragraph in paragraphs[start:]:
        kept.append(paragraph)
        if sum(map(len, kept)) >= want:
            break
    return ["\n".join(kept)]


def chunks(lines, limit, header="", footer=""):
    """Lines packed into documents of at most `limit` bytes, each between the header and the footer."""
    out, size = [[]], 0
    for line in lines:
        if out[-1] and size + len(line.encode()) + 1 > limit:
            out.append([])
            size = 0
        out[-1].append(line)
        size += len(line.encode()) + 1
    return [header + "\n".join(c) + footer for c in out if c]


def csv_chunks(source, name, content):
    header, *lines = content.strip().split("\n")
    return chunks(lines, source.chunk, header + "\n")


def json_rows(source, name, content):
    rows = json.loads(content)
    return [c.removesuffix(",\n]") + "\n]" if c.endswith(",\n]") else c
            for c in chunks([json.dumps(r) + "," for r in rows], source.chunk, "[\n", "\n]")]


def json_pretty(source, name, content):
    return chunks(json.dumps(json.loads(content), indent=2, ensure_ascii=False).split("\n"), source.chunk)


def markdown_tables(source, name, content):
    head, *rows = list(csv.reader(content.strip().split("\n")))
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return chunks([line(r) for r in rows[len(rows) // 2:]], source.chunk, line(head) + "\n" + line(["---"] * len(head)) + "\n")


def lines(source, name, content):
    return chunks(content.strip().split("\n"), source.chunk)


def protocol(source, name, content):
    """A Wayland protocol without its license element; only those under the MIT text (NOTICES.md keeps the holders)."""
    if "Permission is hereby granted, free of charge" not in content:
        return []
    return [re.sub(r"\s*<copyright>.*?</copyright>", "", content, flags=re.S)]
