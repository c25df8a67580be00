# SPDX-License-Identifier: Apache-2.0
"""``pqreg trust init|add|show|check|sign|update|log``: the operator's file that says whose signatures are believed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError, TrustExpired, UsageError
from pqreg_cli import trustlog, trustsign
from pqreg_cli.console import Output, count_text
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption, ProviderOption
from pqreg_cli.session import read_small
from pqreg_cli.trustsign import SignatureOption, SignedByOption, SlhSignedByOption
from pqreg_cli.trustview import show_trust, trust_json

if TYPE_CHECKING:
    from pq_registry.client.trustedit import Bound, Role
    from pq_registry.crypto.identity import PublicIdentity
    from pq_registry.format.name import Namespace
    from pq_registry.format.trustfile import TrustFile

app = new_app(
    help="Decide whose signatures to believe. The trust file is the only root of trust a client has: get it, or the "
    "public files (.pqpub) it is made from, over a channel you trust, and never from the registry.",
)

T = TypeVar("T")
TrustPath = Annotated[Path, typer.Argument(metavar="FILE", help="The trust file, e.g. trust.json.")]
Publishers = Annotated[
    list[str],
    typer.Option("--publisher", metavar="NAMESPACE=FILE", help="Believe this identity (.pqpub) for the namespace."),
]
Revokers = Annotated[
    list[str], typer.Option("--revoker", metavar="NAMESPACE=FILE", help="Let this identity (.pqpub) revoke.")
]
Enrolment = Annotated[
    list[str],
    typer.Option("--enrolment", metavar="NAMESPACE=FILE", help="Let this identity (.pqpub) enrol recipients."),
]
Root = Annotated[
    Path | None,
    typer.Option("--root", metavar="FILE", help="Accept later trust files that this identity (.pqpub) signed."),
]
RootSlh = Annotated[
    Path | None,
    typer.Option("--root-slh", metavar="FILE", help="Demand a signature by this SLH-DSA key (.pqpub) on them too."),
]
MinProfile = Annotated[
    int | None,
    typer.Option("--min-profile", metavar="3|5", help="Lowest profile these namespaces accept.  [default: 5]"),
]


@app.command()
def init(
    file: TrustPath,
    *,
    publisher: Publishers,
    revoker: Revokers = [],  # noqa: B006  typer copies it
    enrolment: Enrolment = [],  # noqa: B006  typer copies it
    expires_days: Annotated[int, typer.Option("--expires-days", metavar="N", help="Days this file is valid.")] = 365,
    grace_days: Annotated[
        int, typer.Option("--grace-days", metavar="N", help="Days that verify and load (not pull) tolerate after that.")
    ] = 0,
    min_profile: MinProfile = None,
    root: Root = None,
    root_slh: RootSlh = None,
    json: JsonOption = False,
) -> None:
    """Make a trust file. An existing file is never overwritten.

    Examples:
      pqreg trust init trust.json --publisher acme=keys/alice.pqpub
      pqreg trust init trust.json --publisher acme=alice.pqpub --publisher lab=bob.pqpub --expires-days 90
    """
    from pq_registry.client import trustedit
    from pq_registry.durable import write_file
    from pq_registry.format.instant import utc_now

    now = utc_now()
    trust = trustedit.new_trust(now=now, lifetime=_lifetime(expires_days), grace_days=grace_days)
    trust = _with_publishers(trust, publisher, _bound(None), _bound(None), _profile(min_profile))
    trust = _with_root(_with_roles(trust, revoker, enrolment), root, root_slh)
    remarks = trustedit.check(trust, now=now)
    _check_parent(file)
    write_file(file, trust.encode(), replace=False)
    output = Output(json=json)
    output.line(f"wrote {file}", "good")
    show_trust(output, trust, remarks)


@app.command()
def add(
    file: TrustPath,
    *,
    publisher: Publishers = [],  # noqa: B006  typer copies it
    not_before: Annotated[
        str | None,
        typer.Option("--not-before", metavar="DATE", help="Their signatures count from here; 'none': always."),
    ] = None,
    not_after: Annotated[
        str | None, typer.Option("--not-after", metavar="DATE", help="Their signatures count up to here; 'none': on.")
    ] = None,
    pin: Annotated[
        list[str],
        typer.Option("--pin", metavar="NAMESPACE=DIGEST", help="Accept this release even when its signer lapsed."),
    ] = [],  # noqa: B006  typer copies it
    revoker: Revokers = [],  # noqa: B006  typer copies it
    enrolment: Enrolment = [],  # noqa: B006  typer copies it
    expires_days: Annotated[
        int | None, typer.Option("--expires-days", metavar="N", help="Valid for N days from now; else as before.")
    ] = None,
    min_profile: MinProfile = None,
    root: Root = None,
    root_slh: RootSlh = None,
    json: JsonOption = False,
) -> None:
    """Add to a trust file and count its version up. A publisher that is there keeps what is not given.

    DATE is a day (2027-01-31, meaning its first second in UTC), an instant (2027-01-31T12:00:00Z), or none, which
    removes that bound of the publishers' validity window. What the file accepts now and did not before is said.

    Examples:
      pqreg trust add trust.json --publisher acme=keys/bob.pqpub
      pqreg trust add trust.json --publisher acme=keys/alice.pqpub --not-after 2027-01-31
      pqreg trust add trust.json --pin acme=sha256:0123...
      pqreg trust add trust.json --root keys/root.pqpub --root-slh keys/root-slh.pqpub
      pqreg trust add trust.json --expires-days 365
    """
    from pq_registry.client import trustedit
    from pq_registry.durable import write_file
    from pq_registry.format.digest import Digest
    from pq_registry.format.instant import utc_now

    if not (publisher or pin or revoker or enrolment or root or root_slh or expires_days is not None):
        raise UsageError("there is nothing to add", hint="pqreg trust add --help shows what can be")
    if (not_before or not_after or min_profile) and not publisher:
        raise UsageError("--not-before, --not-after and --min-profile belong to --publisher")
    now = utc_now()
    before = _load(file)
    trust = _with_publishers(before, publisher, _bound(not_before), _bound(not_after), _profile(min_profile))
    trust = _with_root(_with_roles(trust, revoker, enrolment), root, root_slh)
    for namespace, digest in _pairs(pin, Digest.parse):
        trust = trustedit.pin(trust, namespace, digest)
    lifetime = None if expires_days is None else _lifetime(expires_days)
    trust = trustedit.next_version(trust, now=now, lifetime=lifetime)
    remarks = (*trustedit.loosened(before, trust), *trustedit.check(trust, now=now))
    write_file(file, trust.encode())
    output = Output(json=json)
    output.line(f"wrote {file}, now version {trust.version}", "good")
    show_trust(output, trust, remarks)


@app.command()
def show(file: TrustPath, *, json: JsonOption = False) -> None:
    """Show who is trusted for what, and until when.

    Example:
      pqreg trust show trust.json
    """
    show_trust(Output(json=json), _load(file), ())


@app.command()
def check(
    file: TrustPath,
    *,
    signed_by: SignedByOption = None,
    slh_signed_by: SlhSignedByOption = None,
    signature: SignatureOption = None,
    provider: ProviderOption = None,
    json: JsonOption = False,
) -> None:
    """Check every key in a trust file, and that it has not expired. Exit status 1 if it is not usable.

    With --signed-by its signature is checked as well: FILE.sig, made with pqreg trust sign.

    Examples:
      pqreg trust check trust.json && echo usable
      pqreg trust check trust.json --signed-by root.pqpub --slh-signed-by root-slh.pqpub
    """
    from pq_registry.client import trustedit
    from pq_registry.client.configured import read_trust
    from pq_registry.format.instant import format_instant, is_expired, utc_now

    now = utc_now()
    signer = trustsign.demanded_signer(signed_by, slh_signed_by)
    if signer is not None:
        trustsign.check_signature(file, read_trust(file), signer, signature, provider)
    trust = _load(file)
    remarks = trustedit.check(trust, now=now)
    if is_expired(now, trust.expires):
        raise TrustExpired(
            f"{file} has expired",
            expected=f"a date before {format_instant(trust.expires)}",
            found=format_instant(now),
            hint="get a newer one from whoever gave it to you; if you made it: pqreg trust add FILE --expires-days 365",
        )
    output = Output(json=json)
    identities = sum(len(known.identities) for known in trust.namespaces.values())
    output.line(
        f"{file} is usable until {format_instant(trust.expires)}: {count_text(identities, 'identity')} "
        f"for {count_text(len(trust.namespaces), 'namespace')}",
        "good",
    )
    if signer is not None:
        output.line(f"signed by {signer.identity.id}" + (f" and SLH-DSA {signer.slh.id}" if signer.slh else ""), "good")
    for remark in remarks:
        output.note(remark)
    output.data(
        {
            "usable": True,
            "signed_by": signer.identity.id if signer else None,
            "slh_signed_by": signer.slh.id if signer and signer.slh else None,
            "remarks": list(remarks),
            **trust_json(trust),
        }
    )


app.command()(trustsign.sign)
app.command()(trustsign.update)
app.add_typer(trustlog.app, name="log")


def _load(file: Path) -> TrustFile:
    from pq_registry.client.configured import read_trust
    from pq_registry.format.trustfile import TrustFile

    data = read_trust(file)
    try:
        return TrustFile.parse(data)
    except FormatError as error:
        error.message = f"{file}: {error.message}"
        raise


def _with_publishers(
    trust: TrustFile,
    publishers: list[str],
    not_before: Bound,
    not_after: Bound,
    min_profile: int | None,
) -> TrustFile:
    from pq_registry.client import trustedit

    for namespace, identity in _pairs(publishers, _identity):
        trust = trustedit.add_publisher(
            trust, namespace, identity, not_before=not_before, not_after=not_after, min_profile=min_profile
        )
    return trust


def _with_roles(trust: TrustFile, revokers: list[str], enrolment: list[str]) -> TrustFile:
    from pq_registry.client import trustedit

    given: tuple[tuple[Role, list[str]], ...] = (("revokers", revokers), ("enrolment", enrolment))
    for role, values in given:
        for namespace, identity in _pairs(values, _identity):
            trust = trustedit.add_role(trust, role, namespace, identity)
    return trust


def _with_root(trust: TrustFile, root: Path | None, root_slh: Path | None) -> TrustFile:
    from pq_registry.client import trustedit

    signer = trustsign.demanded_signer(root, root_slh)
    return trust if signer is None else trustedit.set_root(trust, signer.identity, signer.slh)


def _pairs(values: list[str], parse: Callable[[str], T]) -> Iterator[tuple[Namespace, T]]:
    from pq_registry.format.name import Namespace

    for value in values:
        name, equals, rest = value.partition("=")
        if not equals or not rest:
            raise UsageError("an option is wrong", expected="NAMESPACE=VALUE, e.g. acme=alice.pqpub", found=value)
        yield Namespace(name), parse(rest)


def _identity(text: str) -> PublicIdentity:
    from pq_registry.crypto.identity import PublicIdentity

    path = Path(text)
    try:
        return PublicIdentity.from_pem(read_small(path, "public file", limits.IDENTITY_FILE_BYTES))
    except FormatError as error:
        raise UsageError(f"{path}: {error.message}", expected=error.expected, found=error.found,
                         hint=error.hint) from None  # fmt: skip


def _bound(text: str | None) -> Bound:
    from pq_registry.client.trustedit import Keep
    from pq_registry.format.instant import parse_instant

    if text is None:
        return Keep.KEEP
    if text == "none":
        return None
    try:
        return parse_instant(text if "T" in text else f"{text}T00:00:00Z")
    except FormatError:
        raise NameSyntaxError(
            "not a date", expected="2027-01-31, 2027-01-31T12:00:00Z or none", found=repr(text)[:80]
        ) from None


def _lifetime(days: int) -> timedelta:
    longest = 36500
    if not 1 <= days <= longest:
        raise UsageError("--expires-days is wrong", expected=f"1 to {longest}", found=days)
    return timedelta(days=days)


def _profile(given: int | None) -> int | None:
    if given not in (None, 3, 5):
        raise UsageError("--min-profile is wrong", expected="3 or 5", found=given)
    return given


def _check_parent(file: Path) -> None:
    if not file.absolute().parent.is_dir():
        raise UsageError(f"there is no directory {file.parent}", hint=f"mkdir -p {file.parent}")
