"""Reads and writes files with nothing of Longshore's: pyarrow, fastavro, and Python's own csv and json.

    files.py read FILE FORMAT     the rows as JSON lists, one a line; every value as exact text
    files.py csv FILE ENCODING DELIMITER     the records of a CSV file, likewise
    files.py write FOLDER         files for Longshore to read
"""

import csv
import datetime
import decimal
import gzip
import io
import json
import sys
from decimal import Decimal
from pathlib import Path

import fastavro
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

UTC = datetime.timezone.utc


def exact(value):
    """A value as text that tells every bit of it."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, float):
        return value.hex()
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, datetime.datetime):
        if value.tzinfo is not None:
            value = value.astimezone(UTC)
        return value.isoformat(timespec="microseconds")
    if isinstance(value, datetime.time):
        return value.isoformat(timespec="microseconds")
    return str(value)


def read(path, kind):
    if kind == "arrow":
        return pyarrow.ipc.open_file(path).read_all().to_pylist()
    if kind == "parquet":
        return pyarrow.parquet.read_table(path).to_pylist()
    with open(path, "rb") as file:
        return list(fastavro.reader(file))


def write(folder):
    rows = {
        "id": pyarrow.array([1, 2, None], pyarrow.int64()),
        "text": pyarrow.array(["é", "", None], pyarrow.string()),
        "amount": pyarrow.array([Decimal("1.25"), Decimal("-0.01"), None], pyarrow.decimal128(9, 2)),
        "at": pyarrow.array([0, 1, None], pyarrow.timestamp("us", "Europe/Oslo")),
    }
    table = pyarrow.table(rows)
    with pyarrow.ipc.new_file(folder / "file.arrow", table.schema) as out:
        out.write_table(table, max_chunksize=2)
    options = pyarrow.ipc.IpcWriteOptions(compression="lz4")
    with pyarrow.ipc.new_stream(folder / "stream.arrow", table.schema, options=options) as out:
        out.write_table(table)
    schema = {
        "type": "record",
        "name": "row",
        "fields": [
            {"name": "id", "type": ["null", "long"]},
            {"name": "text", "type": ["null", "string"]},
            {
                "name": "amount",
                "type": [
                    "null",
                    {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
                ],
            },
            {"name": "at", "type": ["null", {"type": "long", "logicalType": "timestamp-micros"}]},
        ],
    }
    for codec in ["null", "deflate"]:
        with open(folder / f"{codec}.avro", "wb") as out:
            fastavro.writer(out, schema, table.to_pylist(), codec=codec)
    text = 'id;text;amount\r\n1;"é;""x""";1,25\r\n2;€;-0,01\r\n'
    (folder / "windows.csv").write_bytes(text.encode("cp1252"))
    (folder / "utf16.csv").write_bytes(text.encode("utf-16"))


def main():
    decimal.getcontext().prec = 40
    if sys.argv[1] == "write":
        write(Path(sys.argv[2]))
    elif sys.argv[1] == "read":
        for row in read(sys.argv[2], sys.argv[3]):
            print(json.dumps([exact(value) for value in row.values()]))
    else:
        _, _, path, encoding, delimiter = sys.argv
        opened = gzip.open(path) if path.endswith(".gz") else open(path, "rb")
        with opened as file:
            text = io.TextIOWrapper(file, encoding, newline="")
            for record in csv.reader(text, delimiter=delimiter, strict=True):
                print(json.dumps(record))


main()
