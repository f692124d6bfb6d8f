"""Holds notices against their signatures, with the code that docs/how-to/be-told.md shows.

    signed.py DOCS < NOTICES

Standard input has one notice a line: {"secret": …, "header": …, "body": …, "now": …}. Prints `True` or
`False` for each.
"""

import json
import pathlib
import re
import sys


def main():
    text = pathlib.Path(sys.argv[1]).read_text()
    shown = [code for code in re.findall(r"```python[^\n]*\n(.*?)```", text, re.S) if "def genuine" in code]
    names = {}
    exec(shown[0], names)
    for line in sys.stdin:
        one = json.loads(line)
        given = (one["secret"].encode(), one["header"], one["body"].encode(), one["now"])
        print(names["genuine"](*given))


main()
