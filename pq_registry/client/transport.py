# SPDX-License-Identifier: Apache-2.0
"""The registry as an object: one method per route of ``/v1``.

Answers are parsed and bounded but not verified; ``client.trust`` decides what is believed. Every method raises
TransportError, or the policy error the registry's problem document names (NotAuthenticated, AccessDenied, Conflict,
SequenceUsed, and for what was sent to it the verification errors). Methods may be called from several threads.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import quote, urlencode

from pq_registry import limits
from pq_registry.client import answers, uploadanswers
from pq_registry.client.draftroutes import DraftRoutes
from pq_registry.client.exchange import Exchanger
from pq_registry.client.loganswers import Committed, Logged, committed, logged
from pq_registry.client.logroutes import ENVELOPE_TYPE, LogRoutes
from pq_registry.client.origin import Origin, parse_location, parse_registry
from pq_registry.client.rate import TokenBucket
from pq_registry.client.wire import UNCAPPED, Body, Tls
from pq_registry.errors import NotFound, ResponseInvalid, SettingError
from pq_registry.format.digest import Digest
from pq_registry.format.hexid import parse_recipient_id
from pq_registry.format.name import Namespace, RepositoryName, Tag
from pq_registry.format.strict_json import Fields, encode_base64

T = TypeVar("T")
_JSON = {"Content-Type": "application/json"}
_ENVELOPE = {"Content-Type": ENVELOPE_TYPE}


class RegistryClient(LogRoutes, DraftRoutes):
    """A registry, and the token that is sent to its origin and to no other."""

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        ca: Path | None = None,
        timeout: float = limits.TIMEOUT_SECONDS,
        rate: TokenBucket = UNCAPPED,
        sleep: Callable[[float], None] = time.sleep,
        storage_origins: frozenset[Origin] = frozenset(),
    ) -> None:
        """Nothing is sent yet.

        Args:
            url: of the registry, e.g. ``https://models.example.org``.
            token: a bearer token, or None to be anonymous.
            ca: PEM file with the only certificate authorities to accept.
            timeout: longest silence of the registry, in seconds.
            rate: the bandwidth cap, shared by everything this client sends and its range readers receive.
            sleep: how to pause between tries.
            storage_origins: where the registry may send this client for weights, besides its own host.

        Raises:
            SettingError: if the URL or the token is malformed.
        """
        self.url = url
        self.origin, prefix = parse_registry(url)
        self.rate = rate
        headers = {}
        if token is not None:
            if not token.isascii() or not token.isprintable() or " " in token or not token:
                raise SettingError("the token is malformed", expected="visible ASCII characters")
            headers["Authorization"] = f"Bearer {token}"
        self.exchanger = Exchanger(
            self.origin, prefix=prefix, headers=headers, tls=Tls(ca), timeout=timeout, rate=rate, sleep=sleep,
            storage_origins=storage_origins,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"RegistryClient({str(self.origin)!r})"

    def close(self) -> None:
        """Close idle connections."""
        self.exchanger.close()

    def abort(self) -> None:
        """End every request under way in other threads; the client is unusable afterwards."""
        self.exchanger.abort()

    # -- reading -----------------------------------------------------------------------------------------------------

    def whoami(self) -> answers.Caller:
        """Whose token this is."""
        return self._get("/v1/whoami", answers.caller)

    def storage_origins(self) -> tuple[Origin, ...]:
        """The origins besides its own where the registry keeps weights, as it states them; none if it is older."""
        try:
            stated = self._get("/v1/about", uploadanswers.storage_origins)
        except NotFound:
            return ()
        return tuple(parse_location(text, self.origin)[0] for text in stated)

    def repos(
        self, *, namespace: Namespace | None = None, after: str | None = None, limit: int | None = None
    ) -> answers.RepositoryPage:
        """One page of the repositories the token may read."""
        query = _query(namespace=namespace, after=after, limit=limit)
        return self._get("/v1/repos" + query, answers.repository_page, limit=limits.JSON_RESPONSE_BYTES)

    def repository(
        self, name: RepositoryName, *, after: str | None = None, limit: int | None = None
    ) -> answers.RepositoryView:
        """Tags and releases of a repository, newest first. Raises NotFound."""
        path = _repo(name) + _query(after=after, limit=limit)
        return self._get(path, answers.repository_view, limit=limits.JSON_RESPONSE_BYTES)

    def releases_with_content(self, name: RepositoryName, content: Digest) -> tuple[answers.ReleaseItem, ...]:
        """The releases of a repository that hold exactly the files of this content digest."""
        try:
            path = f"{_repo(name)}/releases{_query(content=content)}"
            return self._get(path, answers.release_items, limit=limits.JSON_RESPONSE_BYTES)
        except NotFound:
            return ()  # the repository does not exist yet

    def release(self, name: RepositoryName, digest: Digest) -> answers.ReleaseView:
        """Where the parts of a release are. Raises NotFound."""
        return self._get(f"{_repo(name)}/releases/{digest.hex}", answers.release_view)

    def tag_envelope(self, name: RepositoryName, tag: Tag) -> bytes | None:
        """The exact envelope of a tag's statement, or None if there is no such tag."""
        try:
            return self.present_tag_envelope(name, tag)
        except NotFound:
            return None

    def present_tag_envelope(self, name: RepositoryName, tag: Tag) -> bytes:
        """The exact envelope of a tag's statement. Raises NotFound, in the registry's words."""
        path = f"{_repo(name)}/tags/{quote(str(tag), safe='')}"
        return self.exchanger.request("GET", path, limit=limits.TAG_ENVELOPE_BYTES).body

    def grants(
        self, name: RepositoryName, *, release: Digest | None = None, recipient: str | None = None
    ) -> tuple[answers.GrantItem, ...]:
        """The latest grant statement per release and recipient, of all or of those named."""
        wanted = {"release": None if release is None else release.hex, "recipient": recipient}
        return self._every(f"{_repo(name)}/grants", answers.grants, wanted)

    def grant_envelope(self, name: RepositoryName, release: Digest, recipient: str) -> bytes | None:
        """The exact envelope of the latest grant statement, or None if there is none."""
        return self._statement(_grant(name, release, recipient))

    def certificates(self, namespace: Namespace) -> tuple[answers.CertificateItem, ...]:
        """The recipients of a namespace that somebody certified; whether to believe that is in the envelopes."""
        return self._every(f"{_namespace(namespace)}/keys", answers.certificates, {})

    def certificate_envelope(self, namespace: Namespace, recipient: str) -> bytes | None:
        """The exact envelope of a recipient's key statement, or None if there is none."""
        return self._statement(f"{_namespace(namespace)}/keys/{parse_recipient_id(recipient)}")

    def blob_bytes(self, digest: Digest, limit: int) -> bytes:
        """A whole blob of at most ``limit`` bytes, not verified. May be answered by a redirect to storage."""
        return self.exchanger.request("GET", blob_path(digest), limit=limit, follow=True).body

    def blob_size(self, digest: Digest) -> int:
        """The size of a blob as the registry states it. Raises NotFound."""
        stated = self.exchanger.request("HEAD", blob_path(digest), limit=0).headers.get("Content-Length", "")
        if not stated.isascii() or not stated.isdigit() or len(stated) > 20:
            raise ResponseInvalid(f"the registry does not say how large {digest} is", expected="Content-Length")
        return int(stated)

    def missing(
        self, name: RepositoryName, digests: Collection[Digest], slice_size: int = limits.SHARD_BYTES
    ) -> frozenset[Digest]:
        """Which of these blobs must be uploaded in slices of ``slice_size``. Asks in pages."""
        found: set[Digest] = set()
        wanted = sorted(set(digests))
        for start in range(0, len(wanted), limits.MISSING_QUERY_DIGESTS):
            page = wanted[start : start + limits.MISSING_QUERY_DIGESTS]
            body = {"digests": [str(digest) for digest in page], "slice_size": slice_size}
            found |= self._post(f"{_repo(name)}/missing", body, answers.missing)
        if not found <= set(wanted):
            raise ResponseInvalid("the registry misses blobs nobody asked about")
        return frozenset(found)

    # -- publishing --------------------------------------------------------------------------------------------------

    def open_upload(
        self, name: RepositoryName, digest: Digest, size: int, slice_size: int = limits.SHARD_BYTES
    ) -> answers.Upload:
        """Start or resume the upload of a blob whose shards have ``slice_size`` bytes."""
        body = {"digest": str(digest), "size": size, "slice_size": slice_size}
        return self._post(f"{_repo(name)}/uploads", body, answers.upload)

    def upload_status(self, name: RepositoryName, upload: str) -> answers.Upload:
        """Which parts of an upload the registry has. Raises NotFound."""
        return self._get(_upload(name, upload), answers.upload)

    def put_part(self, name: RepositoryName, upload: str, number: int, body: Body, shards: bytes) -> None:
        """Send one part, a single time: what came of a failure is in ``upload_status``.

        ``shards`` are the concatenated BLAKE3 digests of its slices, which the registry checks.
        """
        self.exchanger.request(
            "PUT",
            f"{_upload(name, upload)}/parts/{number}",
            limit=limits.PROBLEM_BYTES,
            body=body,
            headers={"Content-Type": "application/octet-stream", "Pqreg-Shards": encode_base64(shards)},
            once=True,
        )

    def sign_part(self, name: RepositoryName, upload: str, number: int, sha256: Digest) -> uploadanswers.SignedPart:
        """A request by which one part, of this SHA-256, goes straight to the registry's storage."""
        body = {"parts": [{"number": number, "sha256": str(sha256)}]}
        signed = self._post(f"{_upload(name, upload)}/urls", body, uploadanswers.signed_parts)
        if [part.number for part in signed] != [number]:
            raise ResponseInvalid("the registry signed other parts than were asked for", expected=f"part {number}")
        return signed[0]

    def complete_upload(self, name: RepositoryName, upload: str) -> Digest | uploadanswers.Verifying:
        """Finish an upload whose parts are all there. Raises FileDigestMismatch if the whole is another file.

        Answers ``Verifying`` if the registry is still reading it: ask again.
        """
        return self._post(f"{_upload(name, upload)}/complete", {}, uploadanswers.completion)

    def abort_upload(self, name: RepositoryName, upload: str) -> None:
        """Give up an upload."""
        self.exchanger.request("DELETE", _upload(name, upload), limit=limits.PROBLEM_BYTES)

    def post_release(self, name: RepositoryName, envelope: bytes) -> Committed:
        """Commit a release; the same one again is fine."""
        answer = self.exchanger.request(
            "POST", f"{_repo(name)}/releases", limit=limits.SHORT_RESPONSE_BYTES, body=envelope, headers=_ENVELOPE
        )
        return answers.read(answer.body, committed, what="the answer to POST releases")

    def put_tag(self, name: RepositoryName, tag: Tag, envelope: bytes) -> Logged:
        """Set a tag. Raises SequenceUsed if another statement came first; the same one again is fine."""
        return self._put(f"{_repo(name)}/tags/{quote(str(tag), safe='')}", envelope)

    def put_grant(self, name: RepositoryName, release: Digest, recipient: str, envelope: bytes) -> Logged:
        """Keep a grant statement. Raises SequenceUsed if another came first; the same one again is fine."""
        return self._put(_grant(name, release, recipient), envelope)

    def add_tag_history(self, name: RepositoryName, tag: Tag, envelopes: Sequence[bytes]) -> Logged:
        """Record statements that follow the tag's present one, oldest first, all or none. Raises SequenceUsed."""
        return self._history(f"{_repo(name)}/tags/{quote(str(tag), safe='')}", envelopes)

    def add_grant_history(
        self, name: RepositoryName, release: Digest, recipient: str, envelopes: Sequence[bytes]
    ) -> Logged:
        """The same for a grant."""
        return self._history(_grant(name, release, recipient), envelopes)

    def add_status_history(self, namespace: Namespace, envelopes: Sequence[bytes]) -> Logged:
        """The same for a namespace's status."""
        return self._history(f"{_namespace(namespace)}/status", envelopes)

    # -- administration ----------------------------------------------------------------------------------------------

    def identities(self, namespace: Namespace) -> tuple[answers.IdentityItem, ...]:
        """The identities registered for a namespace (against spam only: clients believe the trust file)."""
        return self._get(f"{_namespace(namespace)}/identities", answers.identities)

    def register_identity(self, namespace: Namespace, public_pem: bytes) -> None:
        """Register an identity for a namespace."""
        path = f"{_namespace(namespace)}/identities"
        body = json.dumps({"public": public_pem.decode("ascii")}).encode()
        self.exchanger.request("POST", path, limit=limits.SHORT_RESPONSE_BYTES, body=body, headers=_JSON)

    def put_certificate(self, namespace: Namespace, recipient: str, envelope: bytes) -> Logged:
        """Keep a recipient's key statement; a new one replaces it."""
        return self._put(f"{_namespace(namespace)}/keys/{parse_recipient_id(recipient)}", envelope)

    def create_token(
        self, *, role: str, namespaces: Sequence[str], expires_days: int, note: str = ""
    ) -> answers.NewToken:
        """Make a token; its secret is in the answer and nowhere else."""
        body = {"role": role, "namespaces": list(namespaces), "expires_days": expires_days, "note": note}
        return self._post("/v1/tokens", body, answers.new_token, repeatable=False)

    def tokens(self) -> tuple[answers.TokenItem, ...]:
        """The tokens the caller may see, without secrets."""
        return self._get("/v1/tokens", answers.tokens, limit=limits.JSON_RESPONSE_BYTES)

    def revoke_token(self, token_id: str) -> None:
        """End a token."""
        self.exchanger.request("DELETE", f"/v1/tokens/{quote(token_id, safe='')}", limit=limits.PROBLEM_BYTES)

    # ----------------------------------------------------------------------------------------------------------------

    def _statement(self, path: str) -> bytes | None:
        try:
            return self.exchanger.request("GET", path, limit=limits.GRANT_ENVELOPE_BYTES).body
        except NotFound:
            return None

    def _every(
        self, path: str, parse: Callable[[Fields], answers.Page[T]], wanted: dict[str, str | None]
    ) -> tuple[T, ...]:
        """All items of a listing, page by page."""
        found: list[T] = []
        after: str | None = None
        while True:
            query = _query(**wanted, after=after, limit=limits.PAGE_ITEMS)
            page = self._get(path + query, parse, limit=limits.JSON_RESPONSE_BYTES)
            found += page.items
            if page.next is None:
                return tuple(found)
            if len(found) > limits.LISTING_ITEMS or not page.items:
                raise ResponseInvalid(
                    f"the listing {path} does not end", expected=f"at most {limits.LISTING_ITEMS} items"
                )
            after = page.next

    def _history(self, path: str, envelopes: Sequence[bytes]) -> Logged:
        return self._post(f"{path}/history", {"statements": [encode_base64(one) for one in envelopes]}, logged)

    def _get(self, path: str, parse: Callable[[Fields], T], *, limit: int = limits.SHORT_RESPONSE_BYTES) -> T:
        answer = self.exchanger.request("GET", path, limit=limit)
        return answers.read(answer.body, parse, what=f"the answer to GET {path.partition('?')[0]}")

    def _post(
        self, path: str, body: Mapping[str, object], parse: Callable[[Fields], T], *, repeatable: bool = True
    ) -> T:
        answer = self.exchanger.request(
            "POST",
            path,
            limit=limits.SHORT_RESPONSE_BYTES,
            body=json.dumps(body).encode(),
            headers=_JSON,
            repeatable=repeatable,
        )
        return answers.read(answer.body, parse, what=f"the answer to POST {path}")


def blob_path(digest: Digest) -> str:
    """The route of a blob."""
    return f"/v1/blobs/sha256/{digest.hex}"


def _repo(name: RepositoryName) -> str:
    return f"/v1/repos/{quote(str(name.namespace), safe='')}/{quote(name.name, safe='')}"


def _grant(name: RepositoryName, release: Digest, recipient: str) -> str:
    return f"{_repo(name)}/grants/{release.hex}/{parse_recipient_id(recipient)}"


def _namespace(namespace: Namespace) -> str:
    return f"/v1/namespaces/{quote(str(namespace), safe='')}"


def _upload(name: RepositoryName, upload: str) -> str:
    return f"{_repo(name)}/uploads/{quote(upload, safe='')}"


def _query(**values: object) -> str:
    given = {key: str(value) for key, value in values.items() if value is not None}
    return f"?{urlencode(given)}" if given else ""
