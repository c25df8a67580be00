# SPDX-License-Identifier: Apache-2.0
"""The routes of the log and of statuses, as methods that ``client.transport.RegistryClient`` has.

Nothing of an answer is verified here: ``log.receipt`` and ``log.tree`` do that with the bytes. What lies under
``/log/`` may come from a plain file server or a CDN, so there the status alone says that a file is not there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import quote, urlencode

from pq_registry import limits
from pq_registry.client import loganswers
from pq_registry.client.answers import Page, read
from pq_registry.client.exchange import Exchanger
from pq_registry.errors import NotFound, UsageError
from pq_registry.format.digest import Digest
from pq_registry.format.name import Namespace

ENVELOPE_TYPE = "application/vnd.dsse.envelope.v1+json"
_ENVELOPE = {"Content-Type": ENVELOPE_TYPE}
_LOG_FILE = re.compile(
    r"checkpoint|vkey|tile/(?:[0-9]{1,2}|entries)(?:/x[0-9]{3})*/[0-9]{3}(?:\.p/[0-9]{1,3})?", re.ASCII
)


class LogRoutes:
    """Reads a registry's log, and reads and sets the statuses of its namespaces."""

    exchanger: Exchanger

    def statement(self, digest: Digest) -> tuple[bytes, bytes | None]:
        """The exact envelope of the statement with this payload digest, and its receipt if there is one yet.

        Raises:
            NotFound: if the registry has no such statement that the token may read.
            TransportError: if the registry does not answer as it should.
        """
        path = f"/v1/statements/{digest.hex}"
        answer = self.exchanger.request("GET", path, limit=limits.JSON_RESPONSE_BYTES)
        return read(answer.body, loganswers.statement, what="the answer to GET statements")

    def status_envelope(self, namespace: Namespace) -> bytes | None:
        """The exact envelope of a namespace's status, or None if nobody ever issued one."""
        try:
            return self.exchanger.request("GET", _status(namespace), limit=limits.STATUS_ENVELOPE_BYTES).body
        except NotFound:
            return None

    def put_status(self, namespace: Namespace, envelope: bytes) -> loganswers.Logged:
        """Set a namespace's status. Raises SequenceUsed if another came first; the same one again is fine."""
        return self._put(_status(namespace), envelope)

    def log_file(self, path: str) -> bytes:
        """A file of the log: ``checkpoint``, ``vkey`` or ``tile/...``.

        Raises:
            NotFound: if it is not there.
            UsageError: if the log has no such path.
        """
        if not _LOG_FILE.fullmatch(path):
            raise UsageError("not a path of a log", expected="checkpoint, vkey or tile/...", found=repr(path)[:80])
        bound = limits.ENTRY_BUNDLE_BYTES if path.startswith("tile/entries/") else limits.NOTE_BYTES
        return self.exchanger.request("GET", f"/log/{path}", limit=bound, plain=True).body

    def log_entries(
        self,
        *,
        name: str | None = None,
        identity: str | None = None,
        digest: Digest | None = None,
        kind: str | None = None,
        after: int | None = None,
        limit: int | None = None,
    ) -> Page[loganswers.LogEntry]:
        """One page of what the registry says is in its log, newest first; all that is given must agree.

        Args:
            name: a repository or namespace.
            identity: the id of the signer.
            digest: of the statement's payload, or of the release it is about.
            kind: of the statement, e.g. ``release``.
            after: the ``next`` of the page before.
            limit: entries of a page.
        """
        query = _query(
            name=name, identity=identity, digest=None if digest is None else digest.hex, kind=kind, after=after,
            limit=limit,
        )  # fmt: skip
        answer = self.exchanger.request("GET", "/v1/log/entries" + query, limit=limits.JSON_RESPONSE_BYTES)
        return read(answer.body, loganswers.log_entries, what="the answer to GET /v1/log/entries")

    def _put(self, path: str, envelope: bytes) -> loganswers.Logged:
        answer = self.exchanger.request(
            "PUT", path, limit=limits.SHORT_RESPONSE_BYTES, body=envelope, headers=_ENVELOPE
        )
        return read(answer.body, loganswers.logged, what=f"the answer to PUT {path}")


def _status(namespace: Namespace) -> str:
    return f"/v1/namespaces/{quote(str(namespace), safe='')}/status"


def _query(**values: object) -> str:
    given: Mapping[str, str] = {key: str(value) for key, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""
