"""An authority, and certificates by it for a server and for a client."""

import subprocess
from pathlib import Path

_KEY = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]


def _openssl(*words):
    done = subprocess.run(["openssl", *map(str, words)], capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"openssl {words[0]}: {done.stderr}")


class Certificates:
    """`NAME.pem` and `NAME.key` in this folder: `authority`, `server`, `client`."""

    def __init__(self, folder, *addresses):
        self.authority, self.server, self.client = (Path(folder) / name for name in ("authority", "server", "client"))
        _openssl("req", "-x509", *_KEY, "-keyout", f"{self.authority}.key", "-out", f"{self.authority}.pem", "-days", "2",
                 "-subj", "/CN=tests authority")
        names = ",".join(f"IP:{address}" for address in ("127.0.0.1", *addresses))
        self._issue(self.server, f"subjectAltName={names},DNS:localhost\nextendedKeyUsage=serverAuth\n")
        self._issue(self.client, "extendedKeyUsage=clientAuth\n")

    def _issue(self, name, extensions):
        request, file = f"{name}.csr", Path(f"{name}.ext")
        file.write_text(extensions)
        _openssl("req", *_KEY, "-keyout", f"{name}.key", "-out", request, "-subj", f"/CN={name.name}")
        _openssl("x509", "-req", "-in", request, "-CA", f"{self.authority}.pem", "-CAkey", f"{self.authority}.key",
                 "-CAcreateserial", "-out", f"{name}.pem", "-days", "2", "-extfile", file)
