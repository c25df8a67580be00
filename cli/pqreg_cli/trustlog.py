# SPDX-License-Identifier: Apache-2.0
"""``pqreg trust log add|list|window|remove``: which transparency logs a trust file believes, from when to when."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import FormatError, NameSyntaxError, UsageError
from pqreg_cli.console import Output
from pqreg_cli.lazy import new_app
from pqreg_cli.options import JsonOption, TokenOption
from pqreg_cli.session import Session, read_small
from pqreg_cli.trustview import log_rows, show_trust

if TYPE_CHECKING:
    from datetime import datetime

    from pq_registry.client.trustedit import Bound
    from pq_registry.format.note import VerifierKey
    from pq_registry.format.trustfile import TrustFile

app = new_app(
    help="Decide which transparency logs must vouch for what is signed. Without one the trust file says log: exempt, "
    "and every command that relies on that says so."
)

TrustPath = Annotated[Path, typer.Argument(metavar="FILE", help="The trust file, e.g. trust.json.")]
Number = Annotated[int, typer.Argument(metavar="NUMBER", help="Which one, as pqreg trust log list numbers them.")]
NotBefore = Annotated[
    str | None, typer.Option("--not-before", metavar="DATE", help="It counts for attested times from here on.")
]
NotAfter = Annotated[
    str | None, typer.Option("--not-after", metavar="DATE", help="It counts for attested times before this.")
]


@app.command("add")
def add(
    file: TrustPath,
    *,
    source: Annotated[
        str | None,
        typer.Option("--from", metavar="URL", help="The registry whose log it is. [setting: PQREG_REGISTRY]"),
    ] = None,
    fingerprint: Annotated[
        str | None,
        typer.Option(
            "--fingerprint", metavar="HEX", help="SHA-256 of what `pqreg log vkey` prints, from another channel."
        ),
    ] = None,
    tofu: Annotated[
        bool, typer.Option("--tofu", help="Believe the keys that come now, unseen; later ones must be the same.")
    ] = False,
    witness: Annotated[
        list[str],
        typer.Option(
            "--witness", metavar="NAME=FILE[,FILE]", help="An independent witness and its verifier keys (.vkey)."
        ),
    ] = [],  # noqa: B006  typer copies it
    quorum: Annotated[
        int | None, typer.Option("--quorum", metavar="N", help="How many of them must cosign.  [default: all]")
    ] = None,
    not_before: NotBefore = None,
    not_after: NotAfter = None,
    token: TokenOption = None,
    json: JsonOption = False,
) -> None:
    """Believe the log of a registry: from now on nothing counts without its receipt.

    The log's keys are fetched from the registry, which is not trusted: give the fingerprint its operator told you, or
    say --tofu. With witnesses, receipts state a time that does not depend on the log's operator; without, a signer that
    lapsed or was revoked is refused, because nothing shows that it signed before.

    DATE is a day (2027-01-31, meaning its first second in UTC) or an instant (2027-01-31T12:00:00Z).

    Examples:
      pqreg trust log add trust.json --from https://models.example.org --fingerprint 0123...
      pqreg trust log add trust.json --tofu --witness bsi=bsi.vkey --witness uni=uni.vkey --quorum 1
    """
    from pq_registry.client import trustlogs

    if (fingerprint is None) == (not tofu):
        raise UsageError(
            "whose word is it that these are the log's keys?",
            expected="--fingerprint HEX, or --tofu, and not both",
            hint="its operator prints it with: pqreg log vkey --fingerprint",
        )
    output = Output(json=json)
    session = Session(output, registry=source, token=token)
    with session.client() as client:
        text = client.log_file("vkey")
        url = client.url.rstrip("/") + "/log"
    found = trustlogs.fingerprint(text)
    if fingerprint is not None:
        trustlogs.check_fingerprint(text, fingerprint)
    else:
        output.warning(f"the log's keys were believed unseen; compare this fingerprint with its operator: {found}")
    witnesses = dict(_witness(value) for value in witness)
    if len(witnesses) != len(witness):
        raise UsageError("a witness is named twice", expected="a name of its own for each --witness")
    policy = trustlogs.log_policy(text, witnesses, quorum, url=url)
    start, end = _date(not_before), _date(not_after)
    _change(output, file, lambda trust: trustlogs.add_log(trust, policy, start, end))


@app.command("list")
def list_logs(file: TrustPath, *, json: JsonOption = False) -> None:
    """Show the logs a trust file believes, with their witnesses and windows.

    Example:
      pqreg trust log list trust.json
    """
    from pq_registry.client import trustlogs

    output = Output(json=json)
    trust = _load(file)
    rows = log_rows(trust)
    if rows:
        output.table(["number", "log", "witnesses", "from", "until"], rows)
    else:
        output.line("log: exempt; nothing is looked up in a log")
    output.data(
        {
            "exempt": not rows,
            "logs": [
                {
                    "number": number,
                    "origin": entry.policy.origin,
                    "policy": entry.policy.text,
                    "not_before": row[3] if entry.not_before else None,
                    "not_after": row[4] if entry.not_after else None,
                }
                for number, (entry, row) in enumerate(zip(trustlogs.logs_of(trust), rows, strict=True), 1)
            ],
        }
    )


@app.command("window")
def window(
    file: TrustPath,
    number: Number,
    *,
    not_before: NotBefore = None,
    not_after: NotAfter = None,
    json: JsonOption = False,
) -> None:
    """Say from when to when a log counts, for instance to end one that another follows.

    What is not given stays; 'none' removes a bound. The dates are about attested times: what was logged before the end
    stays believed.

    Example:
      pqreg trust log window trust.json 1 --not-after 2027-03-31
    """
    from pq_registry.client import trustlogs

    if not_before is None and not_after is None:
        raise UsageError("nothing would change", expected="--not-before or --not-after")
    start, end = _bound(not_before), _bound(not_after)
    _change(Output(json=json), file, lambda trust: trustlogs.set_window(trust, number, start, end))


@app.command("remove")
def remove(
    file: TrustPath,
    number: Number,
    *,
    exempt: Annotated[
        bool, typer.Option("--exempt", help="Also if it is the last one: nothing is then looked up in a log.")
    ] = False,
    json: JsonOption = False,
) -> None:
    """Stop believing a log. What only that log vouches for is refused from then on.

    Example:
      pqreg trust log remove trust.json 1
    """
    from pq_registry.client import trustlogs

    _change(Output(json=json), file, lambda trust: trustlogs.remove_log(trust, number, exempt=exempt))


def _change(output: Output, file: Path, change: Callable[[TrustFile], TrustFile]) -> None:
    """Apply a change to the trust file and count its version up."""
    from pq_registry.client import trustedit
    from pq_registry.durable import write_file
    from pq_registry.format.instant import utc_now

    now = utc_now()
    before = _load(file)
    trust = trustedit.next_version(change(before), now=now, lifetime=None)
    remarks = (*trustedit.loosened(before, trust), *trustedit.check(trust, now=now))
    write_file(file, trust.encode())
    output.line(f"wrote {file}, now version {trust.version}", "good")
    show_trust(output, trust, remarks)


def _load(file: Path) -> TrustFile:
    from pq_registry.client.configured import read_trust
    from pq_registry.format.trustfile import TrustFile

    data = read_trust(file)
    try:
        return TrustFile.parse(data)
    except FormatError as error:
        error.message = f"{file}: {error.message}"
        raise


def _witness(value: str) -> tuple[str, tuple[VerifierKey, ...]]:
    from pq_registry.client.trustlogs import verifier_keys

    name, equals, files = value.partition("=")
    if not equals or not name or not files:
        raise UsageError("--witness is wrong", expected="NAME=FILE or NAME=FILE,FILE", found=value)
    keys: list[VerifierKey] = []
    for path in files.split(","):
        try:
            keys += verifier_keys(read_small(Path(path), "file of verifier keys", limits.TLOG_POLICY_BYTES))
        except FormatError as error:
            raise UsageError(f"{path}: {error.message}", expected=error.expected, found=error.found) from None
    return name, tuple(keys)


def _bound(text: str | None) -> Bound:
    from pq_registry.client.trustedit import Keep

    if text is None:
        return Keep.KEEP
    return None if text == "none" else _date(text)


def _date(text: str | None) -> datetime | None:
    from pq_registry.format.instant import parse_instant

    if text is None:
        return None
    try:
        return parse_instant(text if "T" in text else f"{text}T00:00:00Z")
    except FormatError:
        raise NameSyntaxError(
            "not a date", expected="2027-01-31 or 2027-01-31T12:00:00Z", found=repr(text)[:80]
        ) from None
