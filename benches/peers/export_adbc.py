"""ADBC's driver for PostgreSQL: a table into one Parquet file, zstd level 1.

    export_adbc.py URL TABLE FILE

Reads with `COPY … (FORMAT binary)` in batches of the driver's own size, and writes each as it comes: one
batch is one row group.

Prints one JSON line: rows, bytes, the columns whose type cannot hold their values ("changed"), and those
whose type is another that can ("retyped").
"""

import sys

import adbc_driver_postgresql.dbapi
import pyarrow.parquet

from common import told, types, without_tls


def main():
    url, table, path = sys.argv[1:]
    with (
        adbc_driver_postgresql.dbapi.connect(without_tls(url)) as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute(types(table))
        declared = dict(cursor.fetchall())
        cursor.execute(f"SELECT * FROM {table}")
        stream = cursor.fetch_record_batch()
        with pyarrow.parquet.ParquetWriter(
            path, stream.schema, compression="zstd", compression_level=1
        ) as writer:
            rows = 0
            for batch in stream:
                writer.write_batch(batch)
                rows += batch.num_rows
    told(path, rows, declared, stream.schema)


main()
