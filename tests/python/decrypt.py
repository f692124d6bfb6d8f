"""Decrypts what `encrypt` of Longshore has delivered, as a recipient does.

    decrypt.py KEY

Reads a value a line from standard input, and prints each as a JSON string.
"""

import base64
import json
import sys

from cryptography.hazmat.primitives.ciphers.aead import AESSIV

key = AESSIV(bytes.fromhex(sys.argv[1]))
for line in sys.stdin:
    value = base64.b64decode(line.strip(), validate=True)
    nonce, sealed = value[:16], value[16:]
    print(json.dumps(key.decrypt(sealed, [nonce]).decode()))
