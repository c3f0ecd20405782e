"""Opens activations of every dtype and layout with pyarrow, polars and DuckDB alone, and checks them against each other.

Usage: read_layouts.py FOLDER, which holds f32-list/, f32-binary/ .. int8-binary/ as tests/e2e/layouts.rs makes them.
"""
import json
import sys
from pathlib import Path

import duckdb
import numpy as np
import polars as pl
import pyarrow.parquet as pq

POINTS = ["blocks.1.hook_resid_post", "hook_embed"]
NUMPY = {"f32": np.float32, "f16": np.float16, "int8": np.int8}


def by_pyarrow(files, point, dtype, layout):
    column = pq.read_table(files, columns=[point])[point].combine_chunks()
    if layout == "binary":
        width = column.type.byte_width // np.dtype(NUMPY[dtype]).itemsize
        return np.frombuffer(column.buffers()[1], NUMPY[dtype])[: len(column) * width].reshape(len(column), width)
    return column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), -1)


def by_polars(files, point, dtype, layout):
    column = pl.read_parquet(files, columns=[point])[point]
    if layout == "binary":
        return np.frombuffer(b"".join(column), NUMPY[dtype]).reshape(len(column), -1)
    return np.stack(column.to_numpy())


def by_duckdb(files, point, dtype, layout):
    rows = duckdb.execute(f'SELECT "{point}" FROM read_parquet(?)', [[str(file) for file in files]]).fetchall()
    if layout == "binary":
        return np.frombuffer(b"".join(row[0] for row in rows), NUMPY[dtype]).reshape(len(rows), -1)
    return np.array([row[0] for row in rows])


def values(folder, point, dtype, layout):
    """The values of a hook point as each tool reads them, in float32."""
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [folder / part["file"] for part in manifest["parts"]]
    assert len(files) == 3, files
    read = {}
    for reader in (by_pyarrow, by_polars, by_duckdb):
        rows = reader(files, point, dtype, layout)
        assert rows.shape == (manifest["counts"]["tokens"], 48), (reader.__name__, rows.shape)
        read[reader.__name__] = rows.astype(np.float32)
    table = pq.read_table(files)
    if dtype == "int8":
        scale = table[point + ".scale"].to_numpy()[:, None]
        assert np.abs(read["by_pyarrow"]).max() == 127
        read = {name: rows * scale for name, rows in read.items()}
    norm = table[point + ".norm"].to_numpy()
    for name, rows in read.items():
        assert np.array_equal(rows, read["by_pyarrow"]), (name, dtype, layout)
        assert np.allclose(np.linalg.norm(rows.astype(np.float64), axis=1), norm, rtol=1e-6), (name, dtype, layout)
    return read["by_pyarrow"]


def main():
    root = Path(sys.argv[1])
    for point in POINTS:
        exact = values(root / "f32-list", point, "f32", "list")
        assert np.array_equal(values(root / "f32-binary", point, "f32", "binary"), exact)
        for layout in ("list", "binary"):
            assert np.array_equal(values(root / f"f16-{layout}", point, "f16", layout), exact.astype(np.float16))
            stored = values(root / f"int8-{layout}", point, "int8", layout)
            step = np.abs(exact).max(1, keepdims=True) / 127
            assert np.all(np.abs(stored - exact) <= 0.5001 * step)


if __name__ == "__main__":
    main()
