# SPDX-License-Identifier: Apache-2.0
"""TLS for the client: always verified, and with the post-quantum key exchange X25519MLKEM768 wherever it can be had.

OpenSSL 3.5 and later offer that group first by default. Where the interpreter is linked with an older one, TLS goes
through pyOpenSSL, whose OpenSSL is the one in the ``cryptography`` wheel (4.0). Certificates and host names are
checked by urllib3 in both cases; nothing here can switch that off.
"""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import TYPE_CHECKING

from pq_registry.errors import SettingError

if TYPE_CHECKING:
    from urllib3.contrib.pyopenssl import PyOpenSSLContext

POST_QUANTUM_OPENSSL = (3, 5, 0)
RECORD_BYTES = 16 * 1024
"""A TLS record. pyOpenSSL allocates what it is asked to receive, so it is never asked for more."""


def interpreter_is_current() -> bool:
    """Whether the interpreter's own OpenSSL knows X25519MLKEM768."""
    return ssl.OPENSSL_VERSION_INFO[:3] >= POST_QUANTUM_OPENSSL


def client_context(ca: Path | None) -> ssl.SSLContext | PyOpenSSLContext:
    """A context for all connections of one client.

    Args:
        ca: PEM file with the only certificate authorities to accept, or None for the system's.

    Raises:
        SettingError: if ``ca`` cannot be read.
    """
    try:
        context = _standard_context(ca) if interpreter_is_current() else _pyopenssl_context(ca)
    except (OSError, ssl.SSLError) as error:
        raise SettingError(
            f"cannot read the certificate authorities in {ca}", expected="certificates as PEM", found=str(error)[:200]
        ) from None
    return context


def _standard_context(ca: Path | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _pyopenssl_context(ca: Path | None) -> PyOpenSSLContext:
    # Imported here: a client that speaks to loopback over plain HTTP starts without either package.
    from urllib3.contrib.pyopenssl import PyOpenSSLContext

    class SharedContext(PyOpenSSLContext):
        """A context for many connections.

        urllib3 configures the context again for every connection, which pyOpenSSL refuses once the context is in use:
        settings that change nothing are swallowed.
        """

        @property
        def verify_mode(self) -> int:
            return super().verify_mode

        @verify_mode.setter
        def verify_mode(self, value: ssl.VerifyMode) -> None:
            if value != ssl.CERT_REQUIRED:
                raise ssl.SSLError("certificates are always verified")
            if self.verify_mode != value:
                PyOpenSSLContext.verify_mode.fset(self, value)  # type: ignore[attr-defined]  # a property

        def set_alpn_protocols(self, protocols: list[bytes | str]) -> None:
            """Leave out ALPN: this client speaks HTTP/1.1 only."""

    context = SharedContext(ssl.PROTOCOL_TLS_CLIENT)
    context.verify_mode = ssl.CERT_REQUIRED
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if ca is None:
        context.set_default_verify_paths()
    else:
        ca.read_bytes()  # pyOpenSSL says nothing useful about a missing file
        context.load_verify_locations(str(ca))
    return context
