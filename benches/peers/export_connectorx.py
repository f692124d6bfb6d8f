"""ConnectorX: a table of PostgreSQL into one Parquet file, zstd level 1.

    export_connectorx.py URL TABLE FILE [whole | PARTITIONS COLUMN]

Reads with `COPY … (FORMAT binary)`, which is ConnectorX's default, as a stream of batches that are written
as they come. With `whole` it gathers the result in memory first, which is a little faster; with PARTITIONS
it does so over that many connections, each reading a range of COLUMN, without a snapshot in common.

Prints one JSON line: rows, bytes, the columns whose type cannot hold their values ("changed"), and those
whose type is another that can ("retyped").
"""

import sys

import connectorx
import pyarrow.parquet

from common import told, types, without_tls


def main():
    url, table, path, *way = sys.argv[1:]
    url = without_tls(url)
    found = connectorx.read_sql(url, types(table), return_type="arrow").to_pydict()
    declared = dict(zip(found["name"], found["type"]))
    query = f"SELECT * FROM {table}"
    if way:
        options = {}
        if way != ["whole"]:
            options = {"partition_num": int(way[0]), "partition_on": way[1]}
        data = connectorx.read_sql(url, query, return_type="arrow", **options)
        pyarrow.parquet.write_table(data, path, compression="zstd", compression_level=1)
        rows = data.num_rows
    else:
        data = connectorx.read_sql(url, query, return_type="arrow_stream", batch_size=65536)
        with pyarrow.parquet.ParquetWriter(
            path, data.schema, compression="zstd", compression_level=1
        ) as writer:
            rows = 0
            for batch in data:
                writer.write_batch(batch)
                rows += batch.num_rows
    told(path, rows, declared, data.schema)


main()
