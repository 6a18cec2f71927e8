"""A certificate of our own for ``view --https``, made by the openssl program."""

import hashlib
import ipaddress
import os
import shutil
import ssl
import subprocess
import tempfile
import time
from pathlib import Path

from lumefield.apps._runtime import cache_dir, writable
from lumefield.errors import InputError

DAYS = 90
"""How long a certificate is valid; it is used again until a tenth of that is left."""


def certified(names: list[str]) -> ssl.SSLContext:
    """A context for a server that is reached by ``names``.

    The certificate and its key (readable by their owner only) are kept in the cache folder, so that
    a browser that was told once to go on need not be told again.

    Args:
        names: Host names or numeric addresses, at least one.

    Raises:
        InputError: If there is no openssl program, or it fails.
    """
    folder = cache_dir() / "https"
    if not writable(folder):
        folder = Path(tempfile.mkdtemp(prefix="lumefield-https-"))
    folder.chmod(0o700)
    stem = hashlib.sha256(" ".join(names).encode()).hexdigest()[:16]
    file = folder / f"{stem}.pem"
    if not file.is_file() or time.time() - file.stat().st_mtime > 0.9 * DAYS * 86_400:
        _make(file, names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(file)
    except (ssl.SSLError, OSError):
        _make(file, names)
        context.load_cert_chain(file)
    return context


def _make(file: Path, names: list[str]) -> None:
    openssl = shutil.which("openssl")
    if openssl is None:
        raise InputError(
            "--https: needs the program openssl, which is not on the path; install it, or use a "
            "headset on USB with `adb reverse` and without --https"
        )
    alternatives = ",".join(f"{'IP' if _numeric(name) else 'DNS'}:{name}" for name in names)
    with tempfile.TemporaryDirectory(dir=file.parent) as scratch:
        key, certificate = Path(scratch) / "key.pem", Path(scratch) / "certificate.pem"
        words = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
        words += ["-nodes", "-days", str(DAYS), "-subj", "/CN=lumefield view"]
        words += ["-addext", f"subjectAltName={alternatives}"]
        words += ["-addext", "extendedKeyUsage=serverAuth"]
        words += ["-keyout", str(key), "-out", str(certificate)]
        try:
            made = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise InputError(f"--https: {openssl} failed ({error}); install a newer one") from None
        if made.returncode:
            last = (made.stderr.strip().splitlines() or ["no message"])[-1]
            raise InputError(f"--https: {openssl} failed ({last}); install a newer one")
        whole = Path(scratch) / "whole.pem"
        whole.touch(0o600)
        whole.write_bytes(key.read_bytes() + certificate.read_bytes())
        os.replace(whole, file)


def _numeric(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True
