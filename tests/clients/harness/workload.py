"""A workload's own token: a JWT (RFC 7519), signed with ES256 by openssl, and the public key that checks it."""

import base64
import json
import subprocess
import time
from pathlib import Path


def _openssl(*words, given=None):
    done = subprocess.run(["openssl", *map(str, words)], input=given, capture_output=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]}: {done.stderr.decode()}")
    return done.stdout


def _plain(octets):
    return base64.urlsafe_b64encode(octets).rstrip(b"=")


def _integers(der):
    """The two integers of an ECDSA signature in DER, each as 32 octets (RFC 7518 section 3.4)."""
    found, at = b"", 2
    for _ in range(2):
        length = der[at + 1]
        found += der[at + 2:at + 2 + length].lstrip(b"\0").rjust(32, b"\0")
        at += 2 + length
    return found


class Workload:
    """`key` in PEM; `token(claims)` is good for ten minutes."""

    def __init__(self, folder):
        self._secret = Path(folder) / "workload.key"
        _openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self._secret)
        self.key = _openssl("pkey", "-in", self._secret, "-pubout").decode()

    def token(self, **claims):
        now = int(time.time())
        claims = {"iss": "tests", "aud": "rollcall", "iat": now, "nbf": now - 5, "exp": now + 600, **claims}
        signed = b".".join(_plain(json.dumps(part).encode()) for part in ({"alg": "ES256", "typ": "JWT"}, claims))
        return (signed + b"." + _plain(_integers(_openssl("dgst", "-sha256", "-sign", self._secret, given=signed)))).decode()
