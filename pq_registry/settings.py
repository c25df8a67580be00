# SPDX-License-Identifier: Apache-2.0
"""Every setting, in one table; the only module that reads the environment.

A setting is taken from, in this order: a command-line option, the environment variable ``PQREG_<NAME>``, the config
file (``$XDG_CONFIG_HOME/pqreg/config.toml``, a flat table written by ``pqreg login``), the default. The path of a
config file can be given in ``PQREG_CONFIG``. Unknown keys of the config file are refused, and so is a config file that
holds a secret and can be read by others than its owner.
"""

from __future__ import annotations

import json
import os
import stat
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from enum import Enum, unique
from pathlib import Path

from pq_registry.durable import make_directory, write_file
from pq_registry.errors import SettingError


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting: its name in the config file, its default as text, and what it is for."""

    name: str
    default: str | None
    help: str
    secret: bool = False

    @property
    def variable(self) -> str:
        """The environment variable."""
        return f"PQREG_{self.name.upper()}"


SETTINGS: tuple[Setting, ...] = (
    Setting("registry", None, "URL of the registry, e.g. https://models.example.org"),
    Setting("token", None, "bearer token for the registry; sent to no other origin", secret=True),
    Setting("source_token", None, "bearer token for the registry that pqreg replicate reads from", secret=True),
    Setting("trust", None, "path of the trust file (trust.json)"),
    Setting("key", None, "path of the secret key file that signs (.pqkey)"),
    Setting("recipient_key", None, "path of the secret key file that opens sealed releases (.pqkey)"),
    Setting("passphrase", None, "passphrase of the secret key file", secret=True),
    Setting("passphrase_file", None, "path of a file whose first line is the passphrase"),
    Setting("passphrase_fd", None, "number of an open file descriptor whose first line is the passphrase"),
    Setting("pkcs11_module", None, "path of the PKCS#11 module that holds the EC half of a key (.so)"),
    Setting("pin", None, "PIN of the PKCS#11 token", secret=True),
    Setting("pin_file", None, "path of a file whose first line is the PIN of the PKCS#11 token"),
    Setting("provider", "openssl", "who verifies ML-DSA signatures: openssl or liboqs"),
    Setting("connections", "4", "parallel connections of a transfer"),
    Setting("limit_rate", "0", "bytes per second a transfer may use, e.g. 50M; 0 is no limit"),
    Setting("tag_lifetime_days", "365", "days until a tag that is set now must be renewed"),
    Setting("private_dir", None, "directory for verified files that other programs read; by default one in memory"),
    Setting("data", None, "directory of the registry service's data"),
    Setting("listen", "127.0.0.1:8470", "address and port the registry service listens on"),
    Setting(
        "database",
        None,
        "URL of the registry's PostgreSQL database; by default SQLite in the data directory",
        secret=True,
    ),
    Setting("database_file", None, "path of a file whose first line is the URL of the database"),
    Setting("storage", None, "where weights are kept, s3://bucket/prefix; by default in the data directory"),
    Setting("s3_endpoint", None, "URL of the object store, e.g. https://s3.eu-central-1.example.org"),
    Setting("s3_public_endpoint", None, "URL at which clients reach the object store, if it is another"),
    Setting("s3_region", "eu-central-1", "region of the bucket; it is part of every signature"),
    Setting("s3_addressing", "path", "how the bucket is named in URLs: path or virtual"),
    Setting("s3_encryption", "none", "encryption at rest by the provider: none, AES256, aws:kms or aws:kms=KEY"),
    Setting("s3_retention_days", "0", "days of Object Lock retention for the blobs of a release; 0 is none"),
    Setting("s3_retention_mode", "governance", "kind of that retention: governance or compliance"),
    Setting("storage_origins", None, "origins, by commas, a client reads weights from besides the registry's host"),
    Setting("public_read", "false", "whether the registry service lets anyone read without a token"),
    Setting("hosts", None, "host names the service answers to, by commas; by default any, on loopback its own"),
    Setting("log_origin", None, "name of the service's log, chosen before its first start, e.g. log.example.org"),
    Setting("log_key", None, "path of the file of the log's secret keys; by default log.key in the data directory"),
    Setting("log_witnesses", None, "path of a C2SP tlog-policy: who is asked to cosign the log, and how many must"),
    Setting("private_log", "false", "whether the log is shown only to those who may read some namespace"),
    Setting("hub", "https://huggingface.co", "URL of the Hugging Face Hub that hf:// names are of"),
    Setting("hub_token", None, "access token of that Hub; sent to no other origin", secret=True),
    Setting("webhook", None, "URL that pqreg audit --follow tells what is new", secret=True),
    Setting("read_only", "false", "whether the registry service refuses every change"),
    Setting("rate_limit", "0", "requests per second one token may make, for bursts ten times that; 0 is no limit"),
    Setting("rate_limit_address", "0", "the same for one network address, before its token is looked at"),
    Setting("trusted_proxies", None, "networks, by commas, whose X-Forwarded-For and X-Forwarded-Proto are believed"),
    Setting("hsts_days", "365", "days for which browsers are told to insist on TLS, once a trusted proxy speaks it"),
    Setting("quota_bytes", "0", "bytes a namespace may hold, e.g. 500G; 0 is no limit"),
    Setting("quota_repositories", "0", "repositories a namespace may have; 0 is no limit"),
    Setting("quotas", None, "path of a TOML file with the quotas of single namespaces"),
    Setting("drafts", "publishers", "who may read drafts: publishers, readers, or off, which takes none"),
    Setting("log_level", "info", "least severe event the registry service logs: debug, info, warning or error"),
    Setting("gateway_listen", "127.0.0.1:8480", "address of this machine and port the gateway listens on"),
    Setting("gateway_from", None, "directories, by colons, the gateway finds releases in instead of the registry"),
    Setting("gateway_hub", None, "URL of a Hub the gateway fetches mirrored releases from instead of the registry"),
    Setting("gateway_hub_organisation", None, "whose repositories on that Hub the mirrors are, if not as named here"),
    Setting("gateway_cache", None, "directory the gateway keeps stored bytes in; by default in the user's cache"),
    Setting("gateway_cache_size", "20G", "bytes the gateway keeps there, e.g. 200G; 0 is nothing"),
    Setting("gateway_token", None, "token the gateway's clients must show as HF_TOKEN; by default none", secret=True),
    Setting("tls_ca", None, "path of a PEM file with the certificate authorities to accept instead of the system's"),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}
# A passphrase or PIN may begin or end with white space; nothing else does on purpose.
_VERBATIM = frozenset({"passphrase", "pin"})


@unique
class Source(Enum):
    """Where a setting's value may come from, the winner first."""

    GIVEN = "option"
    ENVIRONMENT = "environment"
    FILE = "config file"


class Settings:
    """Resolved settings; values given on the command line win."""

    def __init__(
        self,
        given: Mapping[str, str | None] | None = None,
        *,
        environment: Mapping[str, str] | None = None,
        config_file: Path | None = None,
    ) -> None:
        """Read the environment and the config file.

        Raises:
            SettingError: if the config file cannot be read, is not TOML or holds unknown or non-text values.
        """
        self._environment = os.environ if environment is None else environment
        self.config_file = config_file or self._default_config_file()
        self._file = _read_config(self.config_file)
        self._given = {name: value for name, value in (given or {}).items() if value is not None}

    def get(self, name: str) -> str | None:
        """The value of a setting, or its default."""
        source = self.source(name)
        return _BY_NAME[name].default if source is None else self.value_from(source, name)

    def source(self, name: str) -> Source | None:
        """Where the value of a setting comes from; None if it is the default."""
        return next((source for source in Source if self.value_from(source, name)), None)

    def value_from(self, source: Source, name: str) -> str | None:
        """What one source says about a setting, whether or not another wins."""
        if source is Source.GIVEN:
            return self._given.get(name)
        value = self._environment.get(_BY_NAME[name].variable) if source is Source.ENVIRONMENT else self._file.get(name)
        return value if value is None or name in _VERBATIM else value.strip()

    def given(self, name: str) -> bool:
        """Whether a setting was given on the command line."""
        return name in self._given

    def require(self, name: str) -> str:
        """The value of a setting that must be set.

        Raises:
            SettingError: if it is not.
        """
        value = self.get(name)
        if value is None:
            setting = _BY_NAME[name]
            raise SettingError(
                f"no {name.replace('_', ' ')} is configured",
                expected=setting.help,
                hint=f"give --{name.replace('_', '-')} or set {setting.variable}",
            )
        return value

    def integer(self, name: str, *, minimum: int, maximum: int) -> int:
        """A setting as an integer within bounds.

        Raises:
            SettingError: if it is not one.
        """
        text = self.require(name)
        if not text.isascii() or not text.isdigit() or not minimum <= int(text) <= maximum:
            raise SettingError(f"setting {name} is wrong", expected=f"{minimum} to {maximum}", found=repr(text))
        return int(text)

    def boolean(self, name: str) -> bool:
        """A setting as true or false.

        Raises:
            SettingError: if it is neither.
        """
        text = self.require(name).lower()
        if text not in ("true", "false"):
            raise SettingError(f"setting {name} is wrong", expected="true or false", found=repr(text))
        return text == "true"

    def given_variables(self) -> dict[str, str]:
        """What was given on the command line, as variables that give it to a program we start."""
        return {_BY_NAME[name].variable: value for name, value in self._given.items()}

    @property
    def state_dir(self) -> Path:
        """``$XDG_STATE_HOME/pqreg``: plans of unfinished pushes, and what was seen of tags, statuses and logs."""
        base = self._environment.get("XDG_STATE_HOME")
        return (Path(base) if base else Path.home() / ".local" / "state") / "pqreg"

    @property
    def cache_dir(self) -> Path:
        """``$XDG_CACHE_HOME/pqreg``: what can be fetched again."""
        base = self._environment.get("XDG_CACHE_HOME")
        return (Path(base) if base else Path.home() / ".cache") / "pqreg"

    @property
    def runtime_dir(self) -> Path | None:
        """``$XDG_RUNTIME_DIR``: the user's own directory for as long as they are logged in, usually in memory."""
        base = self._environment.get("XDG_RUNTIME_DIR")
        return Path(base) if base else None

    @property
    def passphrase_credential(self) -> Path | None:
        """What systemd hands to a service: ``$CREDENTIALS_DIRECTORY/pqreg-passphrase``, if it is there."""
        directory = self._environment.get("CREDENTIALS_DIRECTORY")
        path = Path(directory) / "pqreg-passphrase" if directory else None
        return path if path is not None and path.is_file() else None

    @property
    def hf_cache_dir(self) -> Path:
        """Where Hugging Face tools look for cached repositories: HF_HUB_CACHE, or HF_HOME/hub."""
        explicit = self._environment.get("HF_HUB_CACHE")
        if explicit:
            return Path(explicit)
        home = self._environment.get("HF_HOME")
        if home:
            return Path(home) / "hub"
        cache = self._environment.get("XDG_CACHE_HOME")
        return (Path(cache) if cache else Path.home() / ".cache") / "huggingface" / "hub"

    @property
    def colour(self) -> bool:
        """Whether colours may be used."""
        return colour_allowed(self._environment)

    def _default_config_file(self) -> Path:
        explicit = self._environment.get("PQREG_CONFIG")
        if explicit:
            return Path(explicit)
        base = self._environment.get("XDG_CONFIG_HOME")
        return (Path(base) if base else Path.home() / ".config") / "pqreg" / "config.toml"


def colour_allowed(environment: Mapping[str, str] | None = None) -> bool:
    """Whether colours may be used: not when NO_COLOR is set (no-color.org). Needs no config file, so cannot fail."""
    return not (os.environ if environment is None else environment).get("NO_COLOR")


@dataclass(frozen=True, slots=True)
class LibraryPlaces:
    """Where the shared library liboqs may be: in ``install_path`` and nowhere else, if that is set."""

    install_path: Path | None
    data_home: Path


def library_places(environment: Mapping[str, str] | None = None) -> LibraryPlaces:
    """Where the environment says that liboqs may be: OQS_INSTALL_PATH, and XDG_DATA_HOME."""
    table = os.environ if environment is None else environment
    explicit, data = table.get("OQS_INSTALL_PATH"), table.get("XDG_DATA_HOME")
    return LibraryPlaces(
        install_path=Path(explicit) if explicit else None,
        data_home=Path(data) if data else Path.home() / ".local" / "share",
    )


def private_environment(home: Path, additions: Mapping[str, str]) -> dict[str, str]:
    """The environment for a child process that must neither see nor touch anything of the user's own.

    Ours without any setting, cache or proxy, with ``home`` as its home, plus ``additions``.
    """
    dropped = ("PQREG_", "XDG_", "HF_")
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(dropped) and not name.lower().endswith("_proxy")
    }
    return {**kept, "HOME": str(home), **additions}


def command_environment(
    additions: Mapping[str, str], *, defaults: Mapping[str, str], dropped: Collection[str] = ()
) -> dict[str, str]:
    """The environment for a command that a user asked to be run: theirs, without ``dropped`` and with ``additions``.

    ``defaults`` are set where theirs says nothing.
    """
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {**defaults, **kept, **additions}


def secret_variable(name: str, environment: Mapping[str, str] | None = None) -> str | None:
    """What stands in an environment variable that a file of the user's names as holding a secret; None if nothing."""
    return (os.environ if environment is None else environment).get(name, "").strip() or None


def tell_libraries(variables: Mapping[str, str]) -> None:
    """Set environment variables of this process that libraries read themselves, as S3 clients do their credentials."""
    os.environ.update(variables)


def write_config(path: Path, changes: Mapping[str, str | None]) -> None:
    """Set (or, with None, remove) settings of the config file; the others stay. Durable, mode 0600.

    Raises:
        SettingError: if the present file cannot be read, or a value holds control characters.
        StorageError: if the file cannot be written.
    """
    table = {**_read_config(path), **changes}
    lines = ["# Written by pqreg; see `pqreg login --help`."]
    for name, value in sorted(table.items()):
        if name not in _BY_NAME:
            raise SettingError("unknown setting", expected=", ".join(_BY_NAME), found=name)
        if value is None:
            continue
        if not value.isprintable():
            raise SettingError(f"setting {name} is wrong", expected="text without control characters")
        # A JSON string of printable characters is a TOML basic string.
        lines.append(f"{name} = {json.dumps(value, ensure_ascii=False)}")
    make_directory(path.parent, 0o700)
    write_file(path, ("\n".join(lines) + "\n").encode(), mode=0o600, exact_mode=True)


def _read_config(path: Path) -> dict[str, str]:
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            table = tomllib.loads(file.read().decode("utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeError, tomllib.TOMLDecodeError) as error:
        raise SettingError(f"cannot read the config file {path}", found=str(error)) from None
    for name, value in table.items():
        if name not in _BY_NAME:
            raise SettingError(f"unknown setting in {path}", expected=", ".join(_BY_NAME), found=name)
        if not isinstance(value, str):
            raise SettingError(f"setting {name} in {path} is wrong", expected="a string", found=repr(value)[:80])
        if _BY_NAME[name].secret and os.name == "posix" and stat.S_IMODE(mode) & 0o077:
            raise SettingError(
                f"{path} holds a {name} and can be read by others",
                expected="mode 600",
                found=f"mode {stat.S_IMODE(mode):o}",
                hint=f"chmod 600 {path}; if others could read it, revoke the token",
            )
    return table


def parse_rate(text: str) -> int:
    """Bytes (per second) from e.g. ``800K``, ``50M``, ``2G`` or ``1T`` (powers of 1024); 0 is no limit.

    Raises:
        SettingError: if ``text`` is not of that form.
    """
    factor = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}.get(text.lstrip("0123456789").upper())
    digits = text.rstrip("kKmMgGtT")
    if factor is None or not digits.isascii() or not digits.isdigit() or len(digits) > 12:
        raise SettingError("not a number of bytes", expected="digits, perhaps K, M, G or T", found=repr(text)[:40])
    return int(digits) * factor
