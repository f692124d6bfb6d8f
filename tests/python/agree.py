"""Reads a file with programs that are not Longshore's, pyarrow and DuckDB, and holds every value
against what it is to be.

    agree.py FILE FORMAT < EXPECTED

EXPECTED is a JSON object: for each column its `type` in Longshore's words, and its `values`, in the
order of the column `k`: dates as days and times as microseconds since 1970 or midnight, bytes as hex
digits, all else as text. Prints `agreed`, or what differs.
"""

import csv
import json
import re
import struct
import sys
from decimal import Decimal

import duckdb
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

DAY = 86_400_000_000
MOST = 20


def same(kind, expected, found):
    """Whether a value is what it is to be; of floats every bit counts."""
    if expected is None or found is None:
        return expected is None and found is None
    if kind in ("float32", "float64"):
        code = "<f" if kind == "float32" else "<d"
        expected, found = struct.pack(code, float(expected)), struct.pack(code, float(found))
        return expected == found
    if kind.startswith("decimal"):
        scale = int(kind.split(",")[1].rstrip(")"))
        found = Decimal(str(found))
        return Decimal(expected) == found and (isinstance(found, float) or -found.as_tuple().exponent == scale)
    return str(expected) == str(found)


def days(text):
    """The days since 1970 of an ISO date with any year."""
    sign, year, month, day = re.fullmatch(r"([+-]?)(\d{4,})-(\d\d)-(\d\d)", text).groups()
    year, month, day = int(sign + year), int(month), int(day)
    year -= month <= 2
    of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    era, of_era = divmod(year, 400)
    return era * 146_097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719_468


def micros(text):
    hours, minutes, seconds = re.fullmatch(r"(\d\d):(\d\d):(\d\d(?:\.\d{6})?)", text).groups()
    return (int(hours) * 60 + int(minutes)) * 60_000_000 + int(Decimal(seconds) * 1_000_000)


def plain(kind, text):
    """A value of a file without types, as the expected ones are."""
    if text is None:
        return None
    if kind == "date":
        return days(text)
    if kind == "time(us)":
        return micros(text)
    if kind.startswith("timestamp"):
        day, time = text.removesuffix("Z").split("T")
        return days(day) * DAY + micros(time)
    if kind == "bool":
        return {"true": "t", "false": "f"}[text]
    return text


def typed(column, kind):
    """A column of Arrow as plain values."""
    if kind == "bool":
        return [None if value is None else "ft"[value] for value in column.to_pylist()]
    if kind == "date":
        column = column.cast(pyarrow.int32())
    elif kind.startswith("time"):
        column = column.cast(pyarrow.int64())
    values = column.to_pylist()
    if kind == "bytes":
        return [None if value is None else value.hex() for value in values]
    return values


def by_pyarrow(path, form, kinds):
    if form == "parquet":
        table = pyarrow.parquet.read_table(path)
    else:
        table = pyarrow.ipc.open_file(path).read_all()
    table = table.sort_by("k")
    return {name: typed(table[name], kind) for name, kind in kinds.items()}


def by_duckdb(path, kinds):
    """Of Parquet. DuckDB has no decimals of more than 38 digits: it makes them floats, and says so."""
    shown = {
        "bool": "CASE {0} WHEN true THEN 't' WHEN false THEN 'f' END",
        "bytes": "lower(hex({0}))",
        "date": "{0} - DATE '1970-01-01'",
        "time(us)": "epoch_us({0})",
        "timestamp(us)": "epoch_us({0})",
        "timestamp(us, UTC)": "epoch_us({0})",
    }
    kinds = {
        name: kind
        for name, kind in kinds.items()
        if not (kind.startswith("decimal") and int(kind[8:].split(",")[0]) > 38)
    }
    columns = [shown.get(kind, "{0}").format(f'"{name}"') for name, kind in kinds.items()]
    rows = duckdb.sql(f"SELECT {', '.join(columns)} FROM read_parquet('{path}') ORDER BY k")
    return dict(zip(kinds, zip(*rows.fetchall())))


def by_python(path, form, kinds):
    """Of text. CSV tells NULL from an empty string by quotes, which Python's own reader drops."""
    if form == "jsonl":
        with open(path, encoding="utf-8", newline="\n") as file:
            rows = [json.loads(line, parse_float=str, parse_int=str) for line in file]
        for row in rows:
            for name, kind in kinds.items():
                value = row[name]
                if isinstance(value, bool):
                    row[name] = "true" if value else "false"
                elif kind == "bytes" and value is not None:
                    import base64

                    row[name] = base64.b64decode(value, validate=True).hex()
    else:
        options = f"all_varchar = true, header = true, nullstr = '', quote = '\"', escape = '\"', delim = ','"
        read = duckdb.sql(
            f"FROM read_csv('{path}', {options}, allow_quoted_nulls = false, new_line = '\\n', parallel = false)"
        )
        rows = [dict(zip(read.columns, row)) for row in read.fetchall()]
        with open(path, encoding="utf-8", newline="") as file:
            known = list(csv.DictReader(file, strict=True))
        assert len(known) == len(rows), f"{len(known)} rows by Python, {len(rows)} by DuckDB"
        for row, other in zip(rows, known):
            for name, value in row.items():
                assert (value or "") == other[name], f"{name}: {value!r}, and {other[name]!r}"
            for name, kind in kinds.items():
                if kind == "bytes" and row[name] is not None:
                    row[name] = row[name].removeprefix("\\x")
    rows.sort(key=lambda row: int(row["k"]))
    return {name: [plain(kind, row[name]) for row in rows] for name, kind in kinds.items()}


def main():
    _, path, form = sys.argv
    expected = json.load(sys.stdin)
    kinds = {name: column["type"] for name, column in expected.items()}
    readers = {}
    if form in ("parquet", "arrow"):
        readers["pyarrow"] = by_pyarrow(path, form, kinds)
        if form == "parquet":
            readers["DuckDB"] = by_duckdb(path, kinds)
    else:
        readers["Python and DuckDB" if form == "csv" else "Python"] = by_python(path, form, kinds)
    wrong = []
    for reader, columns in readers.items():
        for name, found in columns.items():
            values = expected[name]["values"]
            if len(values) != len(found):
                wrong.append(f"{reader}: {len(found)} rows of {len(values)}")
                break
            for row, (one, other) in enumerate(zip(values, found)):
                if not same(kinds[name], one, other):
                    wrong.append(f"{reader}: {name} of row {row} is {other!r}, not {one!r}")
    print("\n".join(wrong[:MOST]) if wrong else "agreed")


main()
