# SPDX-License-Identifier: Apache-2.0
"""A Hugging Face Hub: the one module that wraps ``huggingface_hub``, for mirrors in both directions.

``Hub.api`` is that library's own ``HfApi``; whatever is done with it is done inside ``Hub.translate()``, which lets
only errors of our tree out, or by ``Hub.patiently()``, which also waits where the Hub asks to be left alone::

    hub = Hub("https://huggingface.co", token)
    refs = hub.patiently(lambda: hub.api.list_repo_refs("acme/minilm"), what="listing acme/minilm")

* The token is the one that was given, or none: what the library finds in the environment or in the user's files is
  never used, because it may belong to another Hub.
* A token goes only to an endpoint with TLS or on this machine, and the library's warnings, which quote presigned URLs,
  are not printed. Messages of ours name the endpoint, what was done and what the Hub answered; never headers, URLs
  or bodies, and the library's errors, which hold all of these, are not kept as a cause.
* ``huggingface_hub`` is imported when the first Hub is made, so this module costs nothing at the start of a command.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

from pq_registry import limits
from pq_registry.client.origin import parse_registry
from pq_registry.errors import NameSyntaxError, PqregError, SettingError, TooManyRequests, UsageError
from pq_registry.mirror.hubfailure import failure_of

T = TypeVar("T")

DEFAULT_REVISION = "main"
SCHEME = "hf://"
_REPOSITORY = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9._-]{0,95}", re.ASCII)
_REVISION = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._/-]{0,199}", re.ASCII)


@dataclass(frozen=True, slots=True)
class HubReference:
    """A model on a Hub, at a revision: ``hf://org/model[@revision]``; without a revision, main.

    >>> HubReference.parse("hf://acme/minilm@v1")
    HubReference(repository='acme/minilm', revision='v1')
    """

    repository: str
    revision: str = DEFAULT_REVISION

    def __post_init__(self) -> None:
        """Raise NameSyntaxError unless both parts are well formed."""
        name, revision = self.repository, self.revision
        if not _REPOSITORY.fullmatch(name) or ".." in name or "--" in name or name.endswith((".git", ".", "-")):
            raise NameSyntaxError("not a model on a Hub", expected="hf://org/model[@revision]", found=repr(name)[:120])
        if name.partition("/")[0] in ("datasets", "spaces", "buckets"):
            raise NameSyntaxError("not a model on a Hub", expected="a model repository", found=repr(name)[:120])
        if not _REVISION.fullmatch(revision) or ".." in revision or "//" in revision or revision.endswith("/"):
            raise NameSyntaxError("not a revision", expected="a branch, tag or commit", found=repr(revision)[:120])

    @classmethod
    def parse(cls, text: str) -> HubReference:
        """Read ``hf://org/model[@revision]``.

        Raises:
            NameSyntaxError: if it is anything else.
        """
        if not text.startswith(SCHEME):
            raise NameSyntaxError("not a model on a Hub", expected="hf://org/model[@revision]", found=repr(text)[:120])
        name, at, revision = text.removeprefix(SCHEME).partition("@")
        return cls(name, revision) if at else cls(name)

    def __str__(self) -> str:
        return f"{SCHEME}{self.repository}@{self.revision}"


class Hub:
    """One Hub, and the token that is sent to it."""

    def __init__(
        self,
        endpoint: str,
        token: str | None = None,
        *,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Nothing is sent yet.

        Args:
            endpoint: URL of the Hub, e.g. ``https://huggingface.co``.
            token: an access token of that Hub, or None to be anonymous.
            sleep: how ``patiently`` pauses.

        Raises:
            UsageError: if ``huggingface_hub`` is not installed.
            SettingError: if the URL or the token is malformed, or the token would travel unencrypted.
        """
        self.origin, prefix = parse_registry(endpoint)
        self.endpoint = f"{self.origin}{prefix}"
        if token is not None:
            if not token.isascii() or not token.isprintable() or " " in token or not token:
                raise SettingError("the Hub's token is malformed", expected="visible ASCII characters")
            if not self.origin.private:
                raise SettingError(
                    f"a token for {self.origin} would travel unencrypted", expected="https", found=self.origin.scheme
                )
        self._sleep = sleep
        self.api: Any = library().HfApi(endpoint=self.endpoint, token=token or False, library_name="pq-registry")

    def __repr__(self) -> str:
        return f"Hub({str(self.origin)!r})"

    @contextmanager
    def translate(self, what: str = "the request") -> Iterator[None]:
        """Turn the library's errors into ours. ``what`` names the request in messages, e.g. ``"listing acme/minilm"``.

        Raises:
            NotFound, RevisionNotFound, EntryNotFound: the Hub has no such thing, or does not show it to this token.
            NotAuthenticated, AccessDenied, Conflict, TooManyRequests, ServerRefused: what the Hub answered.
            ConnectionFailed: it could not be reached, or went away.
            ResponseInvalid: its answer makes no sense.
            UsageError: the library refuses the arguments.
            StorageError: the disk failed.
        """
        try:
            yield
        except PqregError:
            raise
        except Exception as error:  # noqa: BLE001  a foreign library, fed by a foreign server, raises anything
            raise failure_of(error, what=what, origin=self.origin).error from None

    def patiently(self, call: Callable[[], T], *, what: str = "the request", repeatable: bool = True) -> T:
        """What ``call`` answers, its errors translated; asked to come back later, it does so.

        Args:
            call: does something with ``api``.
            what: names the request in messages.
            repeatable: whether it may be repeated after a failure that leaves open whether the Hub has carried it out
                (no answer, or a 5xx). A 429 says that it has not, so that is always waited out.

        Raises:
            PqregError: as ``translate``, once patience is at its end.
        """
        failed, waited = 0, 0.0
        while True:
            try:
                return call()
            except PqregError:
                raise
            except Exception as error:  # noqa: BLE001  as in translate
                failure = failure_of(error, what=what, origin=self.origin)
            if isinstance(failure.error, TooManyRequests):
                pause = float(failure.error.retry_after or limits.HUB_PAUSE_SECONDS)
            else:
                failed += 1
                if not (failure.passing and repeatable) or failed >= limits.ATTEMPTS:
                    raise failure.error
                pause = float(failure.error.retry_after or min(2 ** (failed - 1), limits.HUB_PAUSE_SECONDS))
            waited += pause
            if waited > limits.HUB_PATIENCE_SECONDS:
                raise failure.error
            self._sleep(pause)


def library() -> Any:
    """``huggingface_hub``, told to print nothing by itself.

    Raises:
        UsageError: if it is not installed.
    """
    try:
        import huggingface_hub
        from huggingface_hub import hf_api
        from huggingface_hub.utils import disable_progress_bars
        from huggingface_hub.utils import logging as library_logging
    except ImportError:
        raise UsageError("huggingface_hub is not installed", hint="pip install 'pq-registry[mirror]'") from None
    # Its warnings quote the URLs it is redirected to, and those are capabilities; so do its HTTP client's notes.
    # It sets its own level when its parts are first imported, so they are imported before.
    assert hf_api.HfApi
    library_logging.set_verbosity(logging.CRITICAL)
    for name in ("httpx", "httpx2"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    disable_progress_bars()
    return huggingface_hub
