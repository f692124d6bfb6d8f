"""Sling: a table of PostgreSQL into one CSV file with a header.

    export_sling.py URL TABLE FILE

Sling's own process does it all; this one only starts it and reads its log, in hundredths of a second. CSV
has no types, so nothing can be said here of what became of the values: check.py compares them.

Prints one JSON line: rows as Sling counted them, bytes, and null for the columns that changed.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import sling_linux_amd64

from common import types, without_tls


def main():
    url, table, path = sys.argv[1:]
    types(table)  # refuses what is no plain name
    path = Path(path).resolve()
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [
                sling_linux_amd64.SLING_BIN,
                "run",
                *("--src-conn", without_tls(url)),
                *("--src-stream", table if "." in table else f"public.{table}"),
                *("--tgt-object", f"file://{path}"),
            ],
            # Nothing of the user's configuration, and no word to anyone outside.
            env={
                "PATH": os.environ["PATH"],
                "HOME": home,
                "SLING_HOME_DIR": home,
                "SLING_DISABLE_TELEMETRY": "TRUE",
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=1800,
        )
    counted = re.search(r"wrote (\d+) rows", done.stdout)
    if done.returncode or not counted or not path.is_file():
        raise SystemExit(f"sling ended with {done.returncode}:\n{done.stdout}")
    print(json.dumps({"rows": int(counted[1]), "bytes": path.stat().st_size, "changed": None}))


main()
