# SPDX-License-Identifier: Apache-2.0
"""``pqreg trust sign|update``, and the signatures that ``pqreg trust check`` looks at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pq_registry import limits
from pq_registry.errors import FormatError, UsageError
from pqreg_cli.console import Output
from pqreg_cli.options import (
    JsonOption,
    KeyOption,
    PassphraseFdOption,
    PassphraseFileOption,
    ProviderOption,
)
from pqreg_cli.session import Session, read_small
from pqreg_cli.trustview import show_trust

if TYPE_CHECKING:
    from pq_registry.crypto.slhdsa import SlhPublic
    from pq_registry.crypto.trustsigning import TrustSigner

SignedByOption = Annotated[
    Path | None,
    typer.Option("--signed-by", metavar="FILE", help="Demand a signature by this identity (.pqpub)."),
]
SlhSignedByOption = Annotated[
    Path | None,
    typer.Option("--slh-signed-by", metavar="FILE", help="Demand a signature by this SLH-DSA key (.pqpub) as well."),
]
SignatureOption = Annotated[
    Path | None,
    typer.Option("--signature", metavar="FILE", help="The signature file.  [default: the trust file's name and .sig]"),
]


def sign(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The trust file to sign.")],
    *,
    key: KeyOption = None,
    slh_key: Annotated[
        Path | None,
        typer.Option("--slh-key", metavar="FILE", help="Sign with this SLH-DSA key (.pqkey) too; takes seconds."),
    ] = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    slh_passphrase_file: Annotated[
        Path | None,
        typer.Option(
            "--slh-passphrase-file",
            metavar="FILE",
            help="A file whose first line is the passphrase of --slh-key.  [default: that of --key]",
        ),
    ] = None,
    out: SignatureOption = None,
    json: JsonOption = False,
) -> None:
    """Sign a trust file, so that it can be handed to others over any channel.

    The signature goes to FILE.sig; the trust file stays as it is. Both must travel together. Sites whose trust file
    names the signer as root take the new one with: pqreg trust update.

    Examples:
      pqreg trust sign trust.json --key root.pqkey
      pqreg trust sign trust.json --key root.pqkey --slh-key root-slh.pqkey
    """
    from pq_registry.client.configured import read_trust
    from pq_registry.crypto.trustsigning import sign_trust
    from pq_registry.durable import write_file
    from pqreg_keys import custody
    from pqreg_keys.passphrase import PassphraseSource, configured, from_file
    from pqreg_keys.source import FileKeySource

    output = Output(json=json)
    session = Session(output, key=key, passphrase_file=passphrase_file, passphrase_fd=passphrase_fd)
    data = read_trust(file)
    keys = FileKeySource.from_settings(session.settings)
    signer = keys.open(Path(session.settings.require("key")))
    slh = None
    if slh_key is not None:
        if slh_passphrase_file is not None:
            source: PassphraseSource | None = from_file(slh_passphrase_file)
        elif session.settings.get("passphrase_fd") is not None:
            source = keys.passphrase  # a descriptor can be read once
        else:
            source = configured(session.settings, question="Passphrase of the SLH-DSA key file")
        slh = custody.load_slh(slh_key, source)
    signature = sign_trust(data, signer, slh)
    target = signature_path(file, out)
    write_file(target, signature.encode())
    output.line(f"wrote {target}", "good")
    output.fields([("signed by", signer.identity.id), ("SLH-DSA", slh.public.id if slh else None)])
    output.data(
        {"signature": str(target), "signed_by": signer.identity.id, "slh_signed_by": slh.public.id if slh else None}
    )


def update(
    current: Annotated[Path, typer.Argument(metavar="CURRENT", help="The trust file in use; it is replaced.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The newer trust file, from anywhere.")],
    signature: Annotated[
        Path | None, typer.Argument(metavar="[NEW.sig]", help="Its signature.  [default: NEW and .sig]")
    ] = None,
    *,
    provider: ProviderOption = None,
    json: JsonOption = False,
) -> None:
    """Replace a trust file by a newer one that the root of the present one signed.

    Where the new one comes from does not matter. The present file must name a root; the new one must have a higher
    version, not have expired, and be signed by that root: by both halves of the identity, and by the SLH-DSA key where
    the present file names one.

    Example:
      pqreg trust update trust.json downloaded.json downloaded.json.sig
    """
    from pq_registry.client import trustedit
    from pq_registry.client.configured import chosen_provider, read_trust
    from pq_registry.crypto.trustsigning import accept_update
    from pq_registry.durable import write_file
    from pq_registry.format.instant import utc_now
    from pq_registry.format.trustfile import TrustFile
    from pq_registry.format.trustsignature import TrustSignature

    output = Output(json=json)
    settings = Session(output, provider=provider).settings
    now = utc_now()
    present = TrustFile.parse(read_trust(current))
    data = read_trust(new)
    signed = read_small(signature_path(new, signature), "signature file", limits.TRUST_SIGNATURE_BYTES)
    following = accept_update(present, data, TrustSignature.parse(signed), now=now, provider=chosen_provider(settings))
    # The exact bytes that were signed, not ours: the file stays checkable. The signature after it: a trust file without
    # one is usable, a signature of another file only confuses.
    write_file(current, data)
    write_file(signature_path(current, None), signed)
    output.line(f"{current} is now version {following.version}, was {present.version}", "good")
    remarks = list(trustedit.check(following, now=now))
    if following.root is None:
        remarks.append("names no root any more, so no later file can be taken this way")
    elif present.root is not None and following.root != present.root:
        remarks.append(f"names another root: {following.root.id}")
    show_trust(output, following, tuple(remarks))


def check_signature(file: Path, data: bytes, by: TrustSigner, signature: Path | None, provider: str | None) -> None:
    """Verify that ``by`` signed ``data``, the content of ``file``.

    Raises:
        UsageError: if the signature file cannot be read.
        SignatureError: unless it did.
    """
    from pq_registry.client.configured import chosen_provider
    from pq_registry.crypto.trustsigning import verify_trust
    from pq_registry.format.trustsignature import TrustSignature
    from pq_registry.settings import Settings

    signed = read_small(signature_path(file, signature), "signature file", limits.TRUST_SIGNATURE_BYTES)
    verify_trust(data, TrustSignature.parse(signed), by, provider=chosen_provider(Settings({"provider": provider})))


def demanded_signer(signed_by: Path | None, slh_signed_by: Path | None) -> TrustSigner | None:
    """Who must have signed, as the options say.

    Raises:
        UsageError: if a file is not a public file, or only the SLH-DSA key is given.
    """
    from pq_registry.crypto.identity import PublicIdentity
    from pq_registry.crypto.trustsigning import TrustSigner

    if signed_by is None:
        if slh_signed_by is not None:
            raise UsageError("--slh-signed-by belongs to --signed-by", hint="SLH-DSA is an additional signature")
        return None
    try:
        identity = PublicIdentity.from_pem(read_small(signed_by, "public file", limits.IDENTITY_FILE_BYTES))
    except FormatError as error:
        raise UsageError(f"{signed_by}: {error.message}", expected=error.expected, found=error.found,
                         hint=error.hint) from None  # fmt: skip
    return TrustSigner(identity, None if slh_signed_by is None else slh_public(slh_signed_by))


def slh_public(path: Path) -> SlhPublic:
    """The SLH-DSA key in a public file.

    Raises:
        UsageError: if it holds none.
    """
    from pq_registry.crypto.slhdsa import SlhPublic

    try:
        return SlhPublic.from_pem(read_small(path, "public file", limits.IDENTITY_FILE_BYTES))
    except FormatError as error:
        raise UsageError(f"{path}: {error.message}", expected=error.expected, hint=error.hint) from None


def signature_path(file: Path, given: Path | None) -> Path:
    """Where the signature of ``file`` is, unless another place is given."""
    from pq_registry.format.trustsignature import SUFFIX

    return given or file.with_name(file.name + SUFFIX)
