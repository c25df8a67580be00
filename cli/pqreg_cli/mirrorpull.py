# SPDX-License-Identifier: Apache-2.0
"""``pqreg mirror pull``: a model from a Hub, signed as an import."""

from __future__ import annotations

import time
from enum import StrEnum, unique
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from pq_registry import limits
from pq_registry.errors import UsageError
from pqreg_cli.console import Output, count_text
from pqreg_cli.hubs import HubOption, open_hub
from pqreg_cli.importview import import_fields, import_json
from pqreg_cli.options import (
    ConnectionsOption,
    JsonOption,
    KeyOption,
    PassphraseFdOption,
    PassphraseFileOption,
    QuietOption,
    RegistryOption,
    TokenOption,
    TrustOption,
)
from pqreg_cli.push import base_release, publisher_of, report_push, tag_lifetime
from pqreg_cli.session import Session, read_small

if TYPE_CHECKING:
    from pq_registry.mirror.upstream import SignaturePolicy

T = TypeVar("T")


@unique
class Required(StrEnum):
    """What a model's own signature can be made with."""

    KEY = "key"
    CERTIFICATE = "certificate"
    SIGSTORE = "sigstore"
    RELEASE = "release"


def pull(
    source: Annotated[str, typer.Argument(metavar="HUB_MODEL", help="hf://org/model[@revision]; without one, main.")],
    reference: Annotated[str, typer.Argument(metavar="REF", help="namespace/name[:tag]; without a tag, main.")],
    *,
    key: KeyOption = None,
    passphrase_file: PassphraseFileOption = None,
    passphrase_fd: PassphraseFdOption = None,
    hub: HubOption = None,
    require_signature: Annotated[
        Required | None,
        typer.Option(
            "--require-signature",
            help="Refuse a model that its makers did not sign in this way: with a key, by a certificate, keyless "
            "through Sigstore, or as a release of pq-registry.",
        ),
    ] = None,
    signer_key: Annotated[
        Path | None, typer.Option("--signer-key", metavar="FILE", help="For key: the makers' EC public key, PEM.")
    ] = None,
    signer_ca: Annotated[
        Path | None,
        typer.Option("--signer-ca", metavar="FILE", help="For certificate: the authorities to believe, PEM."),
    ] = None,
    signer_identity: Annotated[
        str | None,
        typer.Option("--signer-identity", metavar="NAME", help="For sigstore: who must have signed, exactly."),
    ] = None,
    signer_issuer: Annotated[
        str | None,
        typer.Option("--signer-issuer", metavar="URL", help="For sigstore: who vouches for that name, exactly."),
    ] = None,
    sigstore_root: Annotated[
        Path | None,
        typer.Option(
            "--sigstore-root", metavar="FILE", help="For sigstore: trusted_root.json, if not the one installed with it."
        ),
    ] = None,
    signature: Annotated[
        str | None,
        typer.Option("--signature", metavar="PATH", help="The file with the makers' signature, if not model.sig."),
    ] = None,
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude", metavar="GLOB", help="Leave out files; may be given several times, e.g. '*.bin'."),
    ] = None,
    license: Annotated[  # noqa: A002  the name of the option
        str | None, typer.Option("--license", metavar="SPDX", help="The licence, e.g. Apache-2.0; part of the release.")
    ] = None,
    base: Annotated[
        list[str] | None,
        typer.Option("--base", metavar="REF@DIGEST", help="A release the model was made from, as you know it."),
    ] = None,
    allow_unsafe: Annotated[
        bool, typer.Option("--allow-unsafe", help="Import files whose format can execute code when it is loaded.")
    ] = False,
    convert: Annotated[
        bool,
        typer.Option(
            "--convert",
            help="Turn weight files of PyTorch into safetensors, in a process of their own; needs torch.",
        ),
    ] = False,
    staging: Annotated[
        Path | None,
        typer.Option(
            "--staging", metavar="DIR", help="Where the files go first; by default in the state directory of pqreg."
        ),
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave the staged files there.")] = False,
    registry: RegistryOption = None,
    token: TokenOption = None,
    trust: TrustOption = None,
    connections: ConnectionsOption = None,
    json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Import a model from a Hugging Face Hub: fetch it at a pinned commit, verify it, sign it as an import.

    The release says where every file comes from, what the Hub stated of it and what was found, and who was found to
    have signed the model; you sign that, and not to be its author. Files whose format can execute code are refused:
    leave them out where the same weights are there as safetensors, or convert weights with --convert, which reads them
    in a process that may do nothing else.

    A model that carries the evidence of a release of pq-registry is verified by your trust file first, always. Run
    again after an interruption, an import goes on where it stopped; a second one of the same commit makes no new
    release.

    Examples:
      pqreg mirror pull hf://sentence-transformers/all-MiniLM-L6-v2 acme/minilm:v1 --exclude '*.bin'
      pqreg mirror pull hf://org/model@v2 acme/model --require-signature key --signer-key org.pem
      pqreg mirror pull hf://org/model acme/model --require-signature certificate --signer-ca org-ca.pem
    """
    from pq_registry.client.push import PushOptions
    from pq_registry.format.name import Reference
    from pq_registry.mirror.hub import HubReference
    from pq_registry.mirror.imports import import_model
    from pq_registry.mirror.selection import ImportOptions

    output = Output(json=json, quiet=quiet)
    session = Session(
        output, registry=registry, token=token, trust=trust, key=key, hub=hub,
        passphrase_file=passphrase_file, passphrase_fd=passphrase_fd, connections=connections,
    )  # fmt: skip
    model, wanted = HubReference.parse(source), Reference.parse(reference)
    options = ImportOptions(
        exclude=tuple(exclude or ()),
        require=_policy(
            require_signature, key=signer_key, authorities=signer_ca, identity=signer_identity, issuer=signer_issuer,
            root=sigstore_root,
        ),
        signature=signature,
        allow_unsafe=allow_unsafe,
        convert=convert,
        connections=session.connections,
    )  # fmt: skip
    push_options = PushOptions(
        license=license,
        lineage=None if base is None else tuple(base_release(text) for text in base),
        connections=session.connections,
        tag_lifetime=tag_lifetime(session),
    )
    begun = time.monotonic()
    place = open_hub(session)
    with session.client() as client, session.progress() as progress:
        result = import_model(
            place, model, wanted,
            publisher=publisher_of(session, client),
            staging=staging or session.settings.state_dir / "imports",
            verifier=lambda: session.verifier(online=False),
            options=options, push_options=push_options, keep=keep, progress=progress,
        )  # fmt: skip
    statement = result.statement
    left_out = [file.path.text for file in statement.left_out]
    if left_out:
        output.note(f"left out: {count_text(len(left_out), 'file')} ({', '.join(left_out[:10])}{_more(left_out)})")
    if result.network:
        output.warning(
            "this kernel let the converter have no network of its own: what it read could have reached yours"
        )
    report_push(
        output, result.pushed, time.monotonic() - begun, fields=import_fields(statement),
        data={"import": import_json(statement)},
    )  # fmt: skip


def _more(names: list[str]) -> str:
    return f" and {len(names) - 10} more" if len(names) > 10 else ""


def _policy(
    required: Required | None,
    *,
    key: Path | None,
    authorities: Path | None,
    identity: str | None,
    issuer: str | None,
    root: Path | None,
) -> SignaturePolicy | None:
    from pq_registry.mirror import upstream

    given = {
        "--signer-key": (key, Required.KEY),
        "--signer-ca": (authorities, Required.CERTIFICATE),
        "--signer-identity": (identity, Required.SIGSTORE),
        "--signer-issuer": (issuer, Required.SIGSTORE),
        "--sigstore-root": (root, Required.SIGSTORE),
    }
    for option, (value, kind) in given.items():
        if value is not None and kind is not required:
            raise UsageError(f"{option} goes with --require-signature {kind}", found=str(required or "nothing"))
    match required:
        case None:
            return None
        case Required.KEY:
            path = _needed(key, "--signer-key")
            return upstream.ByKey(read_small(path, "public key", limits.IDENTITY_FILE_BYTES))
        case Required.CERTIFICATE:
            path = _needed(authorities, "--signer-ca")
            return upstream.ByCertificate(read_small(path, "file of certificates", limits.CERTIFICATES_FILE_BYTES))
        case Required.SIGSTORE:
            return upstream.ByIdentity(_needed(identity, "--signer-identity"), _needed(issuer, "--signer-issuer"), root)
        case Required.RELEASE:
            return upstream.ByRelease()


def _needed(value: T | None, option: str) -> T:
    if value is None:
        raise UsageError(f"--require-signature needs {option}", hint="a signature proves nothing until you say whose")
    return value
