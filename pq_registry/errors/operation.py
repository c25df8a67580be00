# SPDX-License-Identifier: Apache-2.0
"""Errors of the house's rules, of the network and of storage; see the drawing in ``pq_registry.errors``."""

from __future__ import annotations

from pq_registry.errors.base import EXIT_TRANSPORT, PolicyError, PqregError


class UnsafeFileType(PolicyError):
    """A file whose format can execute code when it is loaded."""

    status = 422


class KeyCustodyError(PolicyError):
    """A secret key file cannot be used."""


class WrongPassphrase(KeyCustodyError):
    """The passphrase does not open the secret key file, or the file was altered."""


class KeyFileExposed(KeyCustodyError):
    """A secret key file can be read by others than its owner."""


class RecipientUncertified(PolicyError):
    """No enrolment identity certifies the recipient's key."""


class ProviderUnavailable(PolicyError):
    """The implementation of the algorithms that was asked for is not installed, or may not be loaded."""

    status = 501


class SelfTestFailed(PolicyError):
    """An algorithm does not give its known answer here, so nothing is verified or signed."""

    status = 500


class NotAuthenticated(PolicyError):
    """No token, or one that is unknown, expired or revoked."""

    status = 401
    exit_code = EXIT_TRANSPORT


class AccessDenied(PolicyError):
    """The token does not allow this."""

    status = 403
    exit_code = EXIT_TRANSPORT


class Conflict(PolicyError):
    """The request contradicts what is already there."""

    status = 409


class SequenceUsed(Conflict):
    """Another statement already has this sequence number."""


class AlreadyExists(Conflict):
    """Something that is never overwritten stands where this should go."""


class DraftMoved(Conflict):
    """The draft is not at the commit any more that this change was made for."""

    status = 412


class QuotaExceeded(PolicyError):
    """The namespace has no room left under its quota."""


class ReadOnly(PolicyError):
    """The registry's operator allows reading only, for the time being."""


class BlobDamaged(PolicyError):
    """What is stored as a blob is not the blob, so it is served to nobody."""

    status = 410
    exit_code = EXIT_TRANSPORT


class BundleIncomplete(PolicyError):
    """Volumes of a bundle are missing; what came is verified and kept."""

    status = 409


class BundleMismatch(PolicyError):
    """A volume is of another bundle, or what a bundle holds does not belong together."""

    status = 422


class ChainDiverged(PolicyError):
    """Two registries have different histories of one tag, grant or status."""

    status = 409


class SourceChanged(PolicyError):
    """A file changed between hashing and sending."""

    status = 409


class TransportError(PqregError):
    """The network or the server failed."""

    exit_code = EXIT_TRANSPORT
    status = 502


class ConnectionFailed(TransportError):
    """No usable connection: refused, timed out, broken, or not authenticated by TLS."""


class ResponseInvalid(TransportError):
    """The server answered with something its specification does not allow."""


class OriginNotAllowed(TransportError):
    """The registry sends its client to storage that nobody allowed."""


class ServerRefused(TransportError):
    """The server answered with an error of its own."""


class TooManyRequests(ServerRefused):
    """The caller asks more often than the registry's operator allows."""

    status = 429


class WitnessRefused(TransportError):
    """A witness did not cosign a checkpoint."""


class NotFound(TransportError):
    """There is no such thing here."""

    status = 404


class RevisionNotFound(NotFound):
    """The repository has no such revision."""


class EntryNotFound(NotFound):
    """The revision has no such file.

    ``commit`` is the revision's, where it is known: its files never change, so a client may remember what is not there.
    """

    def __init__(
        self,
        message: str,
        *,
        commit: str | None = None,
        expected: object | None = None,
        found: object | None = None,
        hint: str | None = None,
        step: int | None = None,
    ) -> None:
        super().__init__(message, expected=expected, found=found, hint=hint, step=step)
        self.commit = commit


class StorageError(PqregError):
    """The disk or the object store failed."""

    exit_code = EXIT_TRANSPORT
    status = 507


class DeviceFailed(PqregError):
    """An accelerator failed, or has too little free memory."""

    exit_code = EXIT_TRANSPORT
    status = 503


class LogUnavailable(StorageError):
    """The log cannot take a statement at the moment, or has no receipt for it yet."""

    status = 503


class LogSuperseded(LogUnavailable):
    """Another instance writes the log now, or may; whoever leads finds out and goes on, so the call may succeed."""


class LogHalted(StorageError):
    """The log refuses to go on: what it stored, what it signed and the clock do not agree."""

    status = 503
