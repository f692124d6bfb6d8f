"""What the programs for PostgreSQL share: the server's address without TLS, and how a table's types arrived.

Not a program.
"""

import json
import os
import re
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

# The declared type of every column, as PostgreSQL writes it: `numeric(15,2)`. Casts to text, since some
# clients know neither `name` nor `regclass`.
TYPES = """
    SELECT attname::text AS name, format_type(atttypid, atttypmod)::text AS type
    FROM pg_attribute WHERE attrelid = '{table}'::regclass AND attnum > 0 AND NOT attisdropped
    ORDER BY attnum"""


def without_tls(url):
    """The same address with sslmode=disable: Longshore speaks without TLS to this machine, and so do all."""
    parts = urlsplit(url)
    query = {**dict(parse_qsl(parts.query)), "sslmode": "disable"}
    return urlunsplit(parts._replace(query=urlencode(query)))


def types(table):
    """The query for the types of a table. Only plain names go into it."""
    if not re.fullmatch(r"\w+(\.\w+)?", table):
        raise SystemExit(f"{table} is no plain name of a table")
    return TYPES.format(table=table)


def judge(declared, arrow):
    """What became of a type: "" where Arrow's is the same, "retyped" where it is another that holds
    every value, "changed" where it cannot."""
    import pyarrow.types as is_

    name, *numbers = re.split(r"[(,)]", declared.removesuffix(")"))
    bits = {"smallint": 16, "integer": 32, "bigint": 64}.get(name)
    text = is_.is_string(arrow) or is_.is_large_string(arrow)
    if bits:
        if is_.is_signed_integer(arrow) and arrow.bit_width >= bits:
            return "" if arrow.bit_width == bits else "retyped"
    elif name == "numeric":
        precision, scale = map(int, numbers) if numbers else (None, None)
        if is_.is_decimal(arrow) and numbers:
            if (arrow.precision, arrow.scale) == (precision, scale):
                return ""
            whole = arrow.precision - arrow.scale >= precision - scale
            return "retyped" if arrow.scale >= scale and whole else "changed"
    elif name == "date":
        if is_.is_date(arrow):
            return ""
        if is_.is_timestamp(arrow):
            return "retyped"
    elif name in ("character", "character varying", "text") and text:
        return ""
    # Text holds everything, though a reader has to know what it was.
    return "retyped" if text else "changed"


def told(path, rows, declared, schema):
    """Prints what an export to Parquet made. `declared` has the types of the table by column."""
    result = {"rows": rows, "bytes": os.path.getsize(path), "changed": {}, "retyped": {}}
    for field in schema:
        verdict = judge(declared[field.name], getattr(field.type, "storage_type", field.type))
        if verdict:
            result[verdict][field.name] = f"{declared[field.name]} as {field.type}"
    print(json.dumps(result))
