"""Certificates for the loopback address, made by the openssl command, which is needed for that."""

from __future__ import annotations

import subprocess
from pathlib import Path


def make_certificates(directory: Path) -> Path:
    """Make ca.pem, and node.pem and node.key that it signed; return the directory."""

    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=directory, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=ca", "-days", "2")
    openssl("req", *key, "-keyout", "node.key", "-out", "node.csr", "-subj", "/CN=node")
    (directory / "names").write_text("subjectAltName=IP:127.0.0.1\n")
    signing = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
    openssl("x509", "-req", "-in", "node.csr", "-out", "node.pem", *signing)
    return directory


def tls_of_server(files: Path) -> str:
    """Return the part of a NATS server's configuration that asks for TLS with a certificate from both sides."""
    names = f'cert_file: "{files}/node.pem", key_file: "{files}/node.key", ca_file: "{files}/ca.pem"'
    return f"tls {{ {names}, verify: true }}\n"
