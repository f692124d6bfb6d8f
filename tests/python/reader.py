"""Reads deliveries as a recipient does: with pyarrow, and with nothing of Longshore's.

    reader.py FOLDER [COLUMN …]

Every manifest under FOLDER is read with all its files. Each file must have the columns and the rows
that the manifest says, and nothing else may lie beside it. Prints one JSON object: how many
deliveries, files and rows there are, and the exact sum of each COLUMN over all files.
"""

import gzip
import json
import sys
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet


def read(path, columns):
    """The file as a table; of CSV and JSON, whose numbers have no type, every value as text."""
    if path.suffix == ".parquet":
        return pyarrow.parquet.ParquetFile(path).read()
    if path.name.endswith(".csv.gz"):
        types = {name: pyarrow.string() for name in columns}
        options = pyarrow.csv.ConvertOptions(column_types=types)
        with gzip.open(path) as file:
            return pyarrow.csv.read_csv(
                file,
                parse_options=pyarrow.csv.ParseOptions(newlines_in_values=True),
                convert_options=options,
            )
    if path.suffix == ".jsonl":
        if path.stat().st_size == 0:
            return pyarrow.table({name: [] for name in columns})
        return pyarrow.json.read_json(path)
    raise SystemExit(f"no reader for {path}")


def main():
    folder, *summed = sys.argv[1:]
    seen = {"deliveries": 0, "files": 0, "rows": 0}
    sums = {name: Decimal(0) for name in summed}
    for place in sorted(Path(folder).rglob("_manifest.json")):
        manifest = json.loads(place.read_bytes())
        columns = [column["name"] for column in manifest["schema"]]
        named = {file["name"] for file in manifest["files"]}
        there = {path.name for path in place.parent.iterdir()} - {place.name}
        assert there == named, f"{place}: {there} is there, {named} is named"
        rows = 0
        for file in manifest["files"]:
            table = read(place.parent / file["name"], columns)
            assert table.column_names == columns, f"{file['name']}: {table.column_names}"
            assert table.num_rows == file["rows"], f"{file['name']}: {table.num_rows} rows"
            rows += table.num_rows
            for name in summed:
                sums[name] += sum(Decimal(str(value)) for value in table[name].to_pylist())
        assert rows == manifest["counts"]["written"], f"{place}: {rows} rows"
        seen["deliveries"] += 1
        seen["files"] += len(manifest["files"])
        seen["rows"] += rows
    print(json.dumps({**seen, "sums": {name: str(total) for name, total in sums.items()}}))


main()
