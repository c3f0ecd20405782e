"""Writes the same vectors as several tools and types do, and once with a nan: `write_vectors.py FOLDER`."""
import sys

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

folder = sys.argv[1]
n, width = 3000, 12
# Sums of two of six directions: whole numbers, which every type holds.
random = np.random.default_rng(0)
directions = random.integers(-3, 4, (6, width))
x = sum(directions[random.integers(0, 6, n)] * random.integers(1, 4, (n, 1)) for _ in range(2))
flat = pa.array(x.reshape(-1))


def lists(kind):
    return pa.FixedSizeListArray.from_arrays(flat.cast(kind), width)


for name, kind in [("f32", pa.float32()), ("f64", pa.float64()), ("i8", pa.int8()), ("i64", pa.int64())]:
    pq.write_table(pa.table({"id": list(range(n)), "x": lists(kind)}), f"{folder}/pyarrow-{name}.parquet", row_group_size=700)
half = pa.FixedSizeListArray.from_arrays(pa.array(x.reshape(-1).astype(np.float16)), width)
pq.write_table(pa.table({"x": half}), f"{folder}/pyarrow-f16.parquet", compression="zstd")
variable = pa.ListArray.from_arrays(pa.array(range(0, n * width + 1, width), pa.int32()), flat.cast(pa.float32()))
pq.write_table(pa.table({"x": variable}), f"{folder}/pyarrow-list.parquet", data_page_version="2.0", compression="gzip")
pl.DataFrame({"x": pl.Series(x.astype(np.float32), dtype=pl.Array(pl.Float32, width))}).write_parquet(f"{folder}/polars-array.parquet")
pl.DataFrame({"x": pl.Series(x.tolist(), dtype=pl.List(pl.Float64))}).write_parquet(f"{folder}/polars-list.parquet")
vectors = pa.table({"x": variable})
duckdb.sql("from vectors").write_parquet(f"{folder}/duckdb-list.parquet")

nan = x.astype(np.float32)
nan[1234, 5] = np.nan
pl.DataFrame({"x": pl.Series(nan, dtype=pl.Array(pl.Float32, width))}).write_parquet(f"{folder}/nan.parquet")
