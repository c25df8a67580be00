# SPDX-License-Identifier: Apache-2.0
"""The log a service starts with: its keys, made at the first start, and the policy its checkpoints should meet.

The keys are the log: with others it would be another log. So they are made only where no log has ever been; if they are
missing beside one, the service does not start.
"""

from __future__ import annotations

import contextlib
import secrets
from pathlib import Path
from typing import TYPE_CHECKING

from pq_registry import limits
from pq_registry.errors import AlreadyExists, SettingError
from pqreg_cli.session import read_small

if TYPE_CHECKING:
    from pq_registry.format.tlogpolicy import Policy
    from pq_registry.log.signers import LogSigners
    from pq_registry.server.config import ServerConfig
    from pq_registry.service.ledger import LogSetup


def log_setup(config: ServerConfig) -> LogSetup:
    """Keys, policy and witnesses of the configured log; makes the keys at the first start.

    Raises:
        SettingError: if keys, origin and policy do not belong together, or the keys of an existing log are gone.
        KeyFileExposed: if others can read the keys.
        FormatError: if a file is malformed.
        StorageError: if the key file cannot be written.
    """
    from pq_registry.service.ledger import LogSetup

    signers = _signers(config)
    policy = _policy(config.log_witnesses, signers)
    if not policy.attesting:
        return LogSetup(signers=signers, policy=policy)
    from pq_registry.format.instant import utc_now
    from pq_registry.service.witnessing import witness_pool

    return LogSetup(signers=signers, policy=policy, witnesses=witness_pool(policy, utc_now))


def _signers(config: ServerConfig) -> LogSigners:
    from pq_registry import durable
    from pq_registry.log.signers import LogSigners
    from pq_registry.storage.logpresence import has_log, require_named
    from pqreg_keys.notekeyfile import LOG_TYPES, generate_note_keys, load_note_keys

    require_named(config.stores)
    path = config.log_key or config.stores.directory.log_key
    if not path.exists():
        if has_log(config.stores):
            raise SettingError(
                "this registry's log has lost its keys",
                expected=f"the file {path}",
                hint="copy it from the instance that began the log, or from a backup, or name it with PQREG_LOG_KEY; "
                "other keys would be another log",
            )
        durable.make_directory(config.data, 0o700)
        with contextlib.suppress(AlreadyExists):  # another start, a moment ago
            generate_note_keys(path, config.log_origin or f"pqreg.local/{secrets.token_hex(6)}", LOG_TYPES)
    keys = {signer.key.type: signer for signer in load_note_keys(path)}
    if set(keys) != set(LOG_TYPES):
        raise SettingError(
            f"{path} does not hold the keys of a log",
            expected=", ".join(kind.name for kind in LOG_TYPES),
            found=", ".join(sorted(kind.name for kind in keys)),
        )
    signers = LogSigners(*(keys[kind] for kind in LOG_TYPES))
    if config.log_origin not in (None, signers.origin):
        raise SettingError(
            "setting log_origin is not the name of the log's keys",
            expected=signers.origin,
            found=config.log_origin,
            hint="a log cannot be renamed; leave the setting out",
        )
    return signers


def _policy(path: Path | None, signers: LogSigners) -> Policy:
    from pq_registry.format.tlogpolicy import LOG_PQ, Policy

    if path is None:
        return Policy.compose(signers.ed25519.key, signers.mldsa.key, [], 0)
    try:
        text = read_small(path, "log policy", limits.TLOG_POLICY_BYTES).decode("utf-8")
    except UnicodeDecodeError:
        raise SettingError(f"{path} is not a log policy", expected="text in UTF-8") from None
    if not any(line.split()[:1] == ["log"] for line in text.splitlines()):
        text = f"log {signers.ed25519.key}\nwitness {LOG_PQ} {signers.mldsa.key}\n{text}"
    policy = Policy.parse(text)
    if (policy.log, policy.log_pq) != (signers.ed25519.key, signers.mldsa.key):
        raise SettingError(
            f"{path} is the policy of another log",
            expected=f"log {signers.ed25519.key}",
            found=f"log {policy.log}",
            hint=f"leave the lines `log` and `witness {LOG_PQ}` out; the service adds its own",
        )
    return policy
