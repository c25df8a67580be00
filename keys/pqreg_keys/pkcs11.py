# SPDX-License-Identifier: Apache-2.0
"""The EC half of an identity in a PKCS#11 token: a smart card, an HSM, or SoftHSM.

No token in the field does ML-DSA yet, so an identity is split: the EC half is made in the token and never leaves it,
the ML-DSA half is sealed in the key file as always. Whoever steals the file cannot sign without the token, and whoever
takes the token cannot sign without the file.

A key is named by a PKCS#11 URI (RFC 7512) with ``token`` or ``serial``, and ``object`` or ``id``. The URI comes from a
key file and so selects no code and no secret: ``module-path``, ``module-name``, ``pin-value`` and ``pin-source`` are
refused. The module is the setting ``pkcs11_module``; the PIN comes from ``pin_file``, ``pin`` or the terminal.

The token signs the SHA-2 digest of the message (CKM_ECDSA), and answers r || s, which becomes DER here.
"""

from __future__ import annotations

import hashlib
import threading
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NoReturn

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from pq_registry import limits
from pq_registry.crypto.openssl import OPENSSL
from pq_registry.crypto.secret import SecretBytes
from pq_registry.crypto.suites import Profile
from pq_registry.errors import KeyCustodyError, ProviderUnavailable, SettingError, UsageError
from pq_registry.settings import Settings
from pqreg_keys.passphrase import PassphraseSource, asked_once, fixed, from_file, from_terminal, has_terminal

_one_login = threading.Lock()
_ATTRIBUTES: Final = ("token", "serial", "manufacturer", "model", "object", "id", "type")


@dataclass(frozen=True, slots=True)
class TokenKey:
    """Which key of which token a PKCS#11 URI names."""

    uri: str
    token: str | None
    serial: bytes | None
    label: str | None
    key_id: bytes | None

    @classmethod
    def parse(cls, uri: str) -> TokenKey:
        """Read a PKCS#11 URI.

        Raises:
            UsageError: if it is none, names no token or no key, or has an attribute that is not accepted.
        """
        scheme, colon, rest = uri.partition(":")
        if scheme != "pkcs11" or not colon or len(uri) > limits.PKCS11_URI_BYTES or not uri.isascii():
            raise _not_a_uri(uri, "something else")
        found: dict[str, bytes] = {}
        for part in rest.split(";"):
            name, equals, value = part.partition("=")
            if not equals or name not in _ATTRIBUTES or name in found or "?" in value:
                raise _not_a_uri(uri, f"the part {part!r}")
            found[name] = urllib.parse.unquote_to_bytes(value)
        if not ({"token", "serial"} & set(found) and {"object", "id"} & set(found)):
            raise _not_a_uri(uri, "no token, or no key")
        try:
            token, label = (found[name].decode() if name in found else None for name in ("token", "object"))
        except UnicodeDecodeError:
            raise _not_a_uri(uri, "a label that is not UTF-8") from None
        return cls(uri, token, found.get("serial"), label, found.get("id"))

    def of_token(self) -> dict[str, Any]:
        """The arguments that select the token."""
        return {name: value for name, value in (("token_label", self.token), ("token_serial", self.serial)) if value}

    def of_key(self) -> dict[str, Any]:
        """The arguments that select the key in the token."""
        return {name: value for name, value in (("label", self.label), ("id", self.key_id)) if value}


@dataclass(frozen=True, slots=True)
class TokenAccess:
    """How tokens are reached: the PKCS#11 module, and where the PIN comes from, asked only when it is needed."""

    module: Path
    pin: PassphraseSource | None

    @classmethod
    def from_settings(cls, settings: Settings) -> TokenAccess | None:
        """As the settings say; None if they name no module."""
        module = settings.get("pkcs11_module")
        if module is None:
            return None
        path, text = settings.get("pin_file"), settings.get("pin")
        pin: PassphraseSource | None = None
        if path is not None:
            pin = from_file(Path(path))
        elif text is not None:
            pin = fixed(text)
        elif has_terminal():
            pin = asked_once(from_terminal("PIN of the PKCS#11 token"))
        return cls(Path(module), pin)


class TokenEcHalf:
    """Implements ``PrivateHalf`` with a key that stays in the token, which is opened for each signature."""

    __slots__ = ("_access", "_hash", "_spki", "key")

    def __init__(self, profile: Profile, key: TokenKey, spki: bytes, access: TokenAccess | None) -> None:
        """Name the key; nothing is opened yet.

        Raises:
            FormatError: if ``spki`` is not an EC key of ``profile``.
        """
        OPENSSL.check_public(profile, "ec", spki)
        self.key = key
        self._spki = spki
        self._hash = str(profile.ec.hash_name)
        self._access = access

    @property
    def spki(self) -> bytes:
        """The public key as DER SubjectPublicKeyInfo."""
        return self._spki

    def sign(self, message: bytes) -> bytes:
        """An ECDSA signature in DER, made by the token.

        Raises:
            KeyCustodyError: if the token cannot be used.
        """
        with _session(self.key, self._access) as session:
            import pkcs11 as library

            secret = session.get_key(
                object_class=library.ObjectClass.PRIVATE_KEY, key_type=library.KeyType.EC, **self.key.of_key()
            )
            r_and_s = secret.sign(hashlib.new(self._hash, message).digest(), mechanism=library.Mechanism.ECDSA)
        half = len(r_and_s) // 2
        return encode_dss_signature(int.from_bytes(r_and_s[:half], "big"), int.from_bytes(r_and_s[half:], "big"))

    def pkcs8(self) -> SecretBytes:
        """Never: the key stays in the token.

        Raises:
            KeyCustodyError: always.
        """
        raise KeyCustodyError("the EC half stays in its PKCS#11 token", found=self.key.uri,
                              hint="back up the token by its own means")  # fmt: skip

    def __repr__(self) -> str:
        return "<TokenEcHalf>"

    def __reduce_ex__(self, _protocol: object) -> NoReturn:
        raise TypeError("a secret key is neither pickled nor copied")


def public_key(profile: Profile, key: TokenKey, access: TokenAccess, *, create: bool = False) -> bytes:
    """The SPKI of the EC key that ``key`` names; ``create`` makes the pair in the token first.

    Raises:
        KeyCustodyError: if the token cannot be used, or there is no such key, or with ``create`` there is one.
        FormatError: if it is not an EC key of ``profile``.
    """
    with _session(key, access) as session:
        import pkcs11 as library
        from pkcs11.util.ec import encode_ec_public_key

        if create:
            _create(session, profile, key)
        public = session.get_key(
            object_class=library.ObjectClass.PUBLIC_KEY, key_type=library.KeyType.EC, **key.of_key()
        )
        spki = bytes(encode_ec_public_key(public))
    OPENSSL.check_public(profile, "ec", spki)
    return spki


def _create(session: Any, profile: Profile, key: TokenKey) -> None:
    import pkcs11 as library
    from pkcs11.util.ec import encode_named_curve_parameters

    names: dict[str, Any] = {"label": library.Attribute.LABEL, "id": library.Attribute.ID}
    wanted = {names[name]: value for name, value in key.of_key().items()}
    if list(session.get_objects({library.Attribute.CLASS: library.ObjectClass.PRIVATE_KEY, **wanted})):
        raise KeyCustodyError("the token has such a key already", found=key.uri,
                              hint="choose another object or id; a key is never replaced")  # fmt: skip
    curve = session.create_domain_parameters(
        library.KeyType.EC,
        {library.Attribute.EC_PARAMS: encode_named_curve_parameters(profile.ec.parameters)},
        local=True,
    )
    private = {library.Attribute.EXTRACTABLE: False, library.Attribute.SENSITIVE: True}
    curve.generate_keypair(store=True, private_template=private, **{"label": "", **key.of_key()})


@contextmanager
def _session(key: TokenKey, access: TokenAccess | None) -> Iterator[Any]:
    """A session with the token, logged in; errors of the PKCS#11 library as errors of ours."""
    if access is None:
        raise SettingError("no PKCS#11 module is configured", expected="the library that comes with the token",
                           hint="set PQREG_PKCS11_MODULE, e.g. to /usr/lib/softhsm/libsofthsm2.so")  # fmt: skip
    if access.pin is None:
        raise KeyCustodyError("the PKCS#11 token needs its PIN", hint="set PQREG_PIN_FILE or PQREG_PIN")
    try:
        import pkcs11 as library
        from pkcs11.exceptions import PKCS11Error
    except ImportError:
        raise ProviderUnavailable("python-pkcs11 is not installed", hint="pip install 'pq-registry[pkcs11]'") from None
    try:
        # A process is logged in to a token once, whichever session did it: one at a time.
        with _one_login:
            token = library.lib(str(access.module)).get_token(**key.of_token())
            session = token.open(rw=True, user_pin=access.pin().encoded.decode("utf-8"))
            try:
                yield session
            finally:
                session.close()
    except (PKCS11Error, RuntimeError) as error:
        raise KeyCustodyError(
            "the PKCS#11 token cannot be used", expected=f"{key.uri}, and its PIN",
            found=type(error).__name__ + (f": {error}" if str(error) else ""),
            hint="check that the token is there, its label and key, the PIN, and PQREG_PKCS11_MODULE",
        ) from None  # fmt: skip


def _not_a_uri(uri: str, found: str) -> UsageError:
    return UsageError(f"not a PKCS#11 URI of a key: {uri[:200]!r}", expected="pkcs11:token=LABEL;object=LABEL",
                      found=found, hint="module and PIN are settings, not parts of the URI")  # fmt: skip
