# SPDX-License-Identifier: Apache-2.0
"""How an exchange fails: one exception for everything that sockets, TLS libraries and HTTP parsers raise.

Internal to the client: a WireFailure is either followed by another try or becomes an error of the tree. Its text names
no URL, header or body.
"""

from __future__ import annotations

import contextlib
import http.client
from collections.abc import Callable, Iterator


class WireFailure(Exception):  # internal: never leaves client
    """An exchange failed. ``again`` says whether another try may help, ``odd`` that the server broke the protocol."""

    def __init__(self, text: str, *, again: bool = True, odd: bool = False) -> None:
        super().__init__(text)
        self.again = again
        self.odd = odd


@contextlib.contextmanager
def reported(cleanup: Callable[[], None] | None = None) -> Iterator[None]:
    """Turn whatever sockets, TLS and HTTP raise inside into a WireFailure, after calling ``cleanup``."""
    try:
        yield
    except BaseException as error:
        if cleanup is not None:
            cleanup()
        if _is_about_the_certificate(error):
            raise WireFailure("the server's certificate is not one to be trusted", again=False) from error
        if isinstance(error, http.client.HTTPException) and not isinstance(error, ConnectionError):
            # Including IncompleteRead. http.client.RemoteDisconnected is both, and not odd.
            raise WireFailure(f"the answer is not HTTP ({type(error).__name__})", odd=True) from error
        if isinstance(error, OSError | RecursionError | ValueError) or _foreign(error):
            raise WireFailure(_describe(error)) from error
        raise


def _is_about_the_certificate(error: BaseException) -> bool:
    # The interpreter's, urllib3's check of the host name, and pyOpenSSL's, which has no class of its own.
    named = type(error).__name__ in ("SSLCertVerificationError", "CertificateError")
    return named or (isinstance(error, Exception) and "certificate verify failed" in str(error))


def _foreign(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] in ("urllib3", "OpenSSL")


def _describe(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__
