"""Compares the first rows of an export with the table, value by value. It is not part of any measurement.

    check.py URL TABLE KEY[,KEY …] FILE

FILE is Parquet or CSV with a header. Its first 1,000 rows are looked up in TABLE by KEY. Prints one JSON
line: how many rows were compared, and for each column that is not the same what was seen of it:

    as float    a decimal that came as a binary number
    as TYPE     a value that is equal, but of another type
    respelled   the same number, otherwise written (1.50 and 1.5)
    trimmed     the same text less blanks at its end
    retimed     a date with a time of day behind it
    differs     anything else
"""

import csv
import io
import json
import sys
from decimal import Decimal, InvalidOperation
from itertools import islice

import psycopg2
import pyarrow
import pyarrow.parquet

from common import types, without_tls

ROWS = 1000


def read(path):
    """The first rows of a file, and the types of its columns."""
    if path.endswith(".csv"):
        with open(path, newline="", encoding="utf-8") as file:
            return list(islice(csv.DictReader(file), ROWS)), {}
    file = pyarrow.parquet.ParquetFile(path)
    batch = next(file.iter_batches(batch_size=ROWS))
    kinds = {
        field.name: getattr(field.type, "storage_type", field.type) for field in batch.schema
    }
    plain = [
        getattr(column, "storage", column).to_pylist() for column in batch.columns
    ]
    return [dict(zip(kinds, row)) for row in zip(*plain)], kinds


def number(text):
    try:
        return Decimal(text)
    except (InvalidOperation, TypeError):
        return None


def seen(value, text, kind, declared):
    """How a value of the file compares with the table's text."""
    if isinstance(value, float):
        return "as float"
    if str(value) == text:
        wanted = declared.startswith("numeric") and kind is not None
        return f"as {kind}" if wanted and pyarrow.types.is_string(kind) else ""
    if number(text) is not None and number(value) == number(text):
        return f"as {kind}" if kind else "respelled"
    if str(value) == text.rstrip(" "):
        return "trimmed"
    if declared == "date" and str(value).startswith(text):
        return "retimed"
    return "differs"


def main():
    url, table, keys, path = sys.argv[1:]
    keys = keys.split(",")
    rows, kinds = read(path)
    with psycopg2.connect(without_tls(url)) as connection, connection.cursor() as cursor:
        cursor.execute(types(table))
        declared = dict(cursor.fetchall())
        # By COPY, since a cast to text would trim char(n).
        wanted = [[str(row[key]) for row in rows] for key in keys]
        names = ", ".join(f"k{index}" for index in range(len(keys)))
        lists = ", ".join(["%s::text[]"] * len(keys))
        same = " AND ".join(f"t.{key}::text = k{index}" for index, key in enumerate(keys))
        query = f"SELECT t.* FROM {table} t JOIN unnest({lists}) AS k({names}) ON {same}"
        text = io.StringIO()
        copy = f"COPY ({cursor.mogrify(query, wanted).decode()}) TO STDOUT (FORMAT csv, HEADER)"
        cursor.copy_expert(copy, text)
    text.seek(0)
    there = {tuple(row[key] for key in keys): row for row in csv.DictReader(text)}
    assert rows and len(there) == len(rows), f"{len(rows)} rows, {len(there)} of them in the table"
    found = {}
    for row in rows:
        other = there[tuple(str(row[key]) for key in keys)]
        assert list(row) == list(other), f"the columns are {list(row)}"
        for name, value in row.items():
            word = seen(value, other[name], kinds.get(name), declared[name])
            if word and word not in found.setdefault(name, []):
                found[name].append(word)
    print(json.dumps({"compared": len(rows), "columns": {k: v for k, v in found.items() if v}}))


main()
