"""dlt: rows of a CSV file with a header into a table of PostgreSQL, by its key.

    upsert_dlt.py URL FILE SCHEMA.TABLE KEY[,KEY …] [arrow]

The file is imported as it is, which is dlt's shortest way: COPY into a staging table, then one MERGE (the
strategy "upsert"). With `arrow` it is read with pyarrow in batches and written again by dlt first, as a
pipeline does that looks at its rows. The table must be there, and its types are given to dlt, which would
else guess them; it leaves the table's own as they are. dlt keeps tables of its own beside it, and
a schema SCHEMA_staging.

A load that failed is loaded again by the next run in the same working folder; this program's is a
temporary one.

Prints one JSON line: the rows that dlt counted, or null, for it counts none of an imported file.
"""

import json
import os
import re
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg2

from common import types, without_tls

KINDS = {
    "smallint": {"data_type": "bigint", "precision": 16},
    "integer": {"data_type": "bigint", "precision": 32},
    "bigint": {"data_type": "bigint"},
    "date": {"data_type": "date"},
    "text": {"data_type": "text"},
    "character": {"data_type": "text"},
    "character varying": {"data_type": "text"},
}


def column(name, declared, required):
    """A column of the table as dlt writes it."""
    kind, *numbers = re.split(r"[(,)]", declared.removesuffix(")"))
    numbers = [int(number) for number in numbers]
    if kind == "numeric":
        hint = {"data_type": "decimal", **dict(zip(("precision", "scale"), numbers))}
    else:
        hint = {**KINDS[kind]}
        if kind.startswith("character"):
            hint["precision"] = numbers[0]
    return {"name": name, **hint, "nullable": not required}


def with_password(url):
    """dlt wants a password even of a server that asks for none."""
    parts = urlsplit(url)
    if parts.password is None and parts.username is not None:
        user, _, rest = parts.netloc.rpartition("@")
        parts = parts._replace(netloc=f"{user}:none@{rest}")
    return urlunsplit(parts)


def batches(path, columns):
    import pyarrow
    import pyarrow.csv

    kinds = {"bigint": pyarrow.int64(), "text": pyarrow.string(), "date": pyarrow.date32()}
    arrow = {
        c["name"]: (
            pyarrow.decimal128(c["precision"], c["scale"])
            if c["data_type"] == "decimal"
            else kinds[c["data_type"]]
        )
        for c in columns
    }
    with pyarrow.csv.open_csv(
        path,
        read_options=pyarrow.csv.ReadOptions(block_size=16 << 20),
        convert_options=pyarrow.csv.ConvertOptions(column_types=arrow),
    ) as reader:
        for batch in reader:
            yield pyarrow.Table.from_batches([batch])


def main():
    url, path, target, keys, *way = sys.argv[1:]
    url, keys = without_tls(url), keys.split(",")
    schema, table = target.split(".")
    with psycopg2.connect(url) as connection, connection.cursor() as cursor:
        cursor.execute(types(target))
        declared = dict(cursor.fetchall())
        cursor.execute(
            "SELECT attname FROM pg_attribute WHERE attrelid = %s::regclass AND attnotnull",
            [target],
        )
        required = {name for (name,) in cursor.fetchall()}
    columns = [column(name, kind, name in required) for name, kind in declared.items()]
    # Beside the file, so that dlt can link it instead of copying it.
    with tempfile.TemporaryDirectory(dir=Path(path).resolve().parent) as folder:
        counted = load(folder, path, columns, keys, url, schema, table, way)
    print(json.dumps({"rows": counted or None}))


def load(folder, path, columns, keys, url, schema, table, way):
    # Set before the import: no word to anyone outside. (It writes an id for that into the user's folder all
    # the same.)
    os.environ |= {"RUNTIME__DLTHUB_TELEMETRY": "false", "RUNTIME__LOG_LEVEL": "ERROR"}
    import dlt

    @dlt.resource(
        name=table,
        columns=columns,
        primary_key=keys,
        write_disposition={"disposition": "merge", "strategy": "upsert"},
        file_format="csv",
    )
    def rows():
        if way == ["arrow"]:
            yield from batches(path, columns)
        else:
            yield dlt.mark.with_file_import(path, "csv")

    pipeline = dlt.pipeline(
        pipeline_name="longshore_peer",
        pipelines_dir=folder,
        destination=dlt.destinations.postgres(credentials=with_password(url)),
        dataset_name=schema,
    )
    pipeline.run(rows()).raise_on_failed_jobs()
    return pipeline.last_trace.last_normalize_info.row_counts.get(table)


main()
