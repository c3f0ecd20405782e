"""Runs the example queries of a document with DuckDB and polars, which must give the same rows, and some.

Usage: run_queries.py README.md, in the folder with acts/ and features/ as tests/e2e/pipeline.rs makes them.
"""
import re
import sys
from pathlib import Path

import duckdb
import polars as pl
from polars.testing import assert_frame_equal


def main():
    section = Path(sys.argv[1]).read_text().split("### Queries\n")[1]
    section = re.split(r"^##", section, flags=re.MULTILINE)[0].replace("runs/activations", "acts").replace("runs/", "")
    queries = re.findall(r"```(sql|python)\n(.*?)```", section, flags=re.DOTALL)
    assert [kind for kind, _ in queries] == ["sql", "python"] * 5, queries
    for (_, sql), (_, python) in zip(queries[::2], queries[1::2]):
        names = {"pl": pl}
        exec(python, names)
        by_polars, by_duckdb = names["result"].collect(), duckdb.sql(sql).pl()
        assert len(by_polars) > 0, f"no rows:\n{python}"
        assert_frame_equal(by_polars, by_duckdb, check_dtypes=False)


if __name__ == "__main__":
    main()
