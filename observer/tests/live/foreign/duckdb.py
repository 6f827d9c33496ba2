"""Reads a table of waits, and the same as CSV, with DuckDB, and says what is in it, as JSON."""
import json
import sys

import duckdb

parquet, csv = sys.argv[1:3]


def one(query, *values):
    return duckdb.execute(query, values).fetchall()


def what(source, path):
    rows, dur_ns = one(f"select count(*), sum(dur_ns)::bigint from {source}", path)[0]
    locks = one(f"select distinct lock_id from {source} where lock_class = 'pthread_mutex' order by 1", path)
    pids = one(f"select distinct pid from {source} order by 1", path)
    return {"rows": rows, "dur_ns": dur_ns, "locks": [lock for lock, in locks], "pids": [pid for pid, in pids]}


json.dump({
    "parquet": what("read_parquet(?)", parquet),
    "csv": what("read_csv(?)", csv),
    "stacks": one("select count(*) from read_parquet(?) where stack like '%;%'", parquet)[0][0],
    "types": {row[0]: row[1] for row in one("describe select * from read_parquet(?)", parquet)},
}, sys.stdout)
