# SPDX-License-Identifier: Apache-2.0
"""A certificate authority and TLS servers in front of a registry of a few lines."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from pq_registry.format.instant import utc_now
from tests.fake_registry import FakeRegistry, Handler, _Server


class Authority:
    """Issues certificates below ``directory``; ``ca`` is its own."""

    def __init__(self, directory: Path, name: str = "test authority") -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.ca = directory / "ca.pem"
        self.ca.write_bytes(self._sign(self._name, self._key.public_key(), None))

    def issue(self, host: str, *others: str) -> Path:
        """A file with a certificate for ``host`` (and other names) and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternative = [_general(name) for name in (host, *others)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        path = self.directory / f"{host}.pem"
        path.write_bytes(
            self._sign(subject, key.public_key(), alternative)
            + key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )
        return path

    def _sign(
        self, subject: x509.Name, public: ec.EllipticCurvePublicKey, alternative: list[x509.GeneralName] | None
    ) -> bytes:
        now = utc_now()
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=alternative is None, path_length=None), critical=True)
        )
        if alternative is not None:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
        return builder.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ip_address(name))
    except ValueError:
        return x509.DNSName(name)


@contextmanager
def serving_tls(certificate: Path, registry: FakeRegistry | None = None) -> Iterator[FakeRegistry]:
    """Serve ``registry`` by TLS on a free port of 127.0.0.1."""
    registry = registry or FakeRegistry()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)

    class TlsHandler(Handler):
        def setup(self) -> None:
            self.request.settimeout(20)
            self.request = context.wrap_socket(self.request, server_side=True)
            super().setup()

        def finish(self) -> None:
            super().finish()
            self.request.close()

    class Server(_Server):
        def handle_error(self, request: socket.socket | tuple[bytes, socket.socket], client_address: object) -> None:
            """A client that refuses the certificate is no error of a test."""
            assert isinstance(request, socket.socket)
            request.close()

    server = Server(("127.0.0.1", 0), type("_TlsHandler", (TlsHandler,), {"registry": registry}))
    registry.url = f"https://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield registry
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
