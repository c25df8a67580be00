# SPDX-License-Identifier: Apache-2.0
"""Sub-commands that are imported when they are used, and not before.

``COMMANDS`` is the table of the command line: name, where its code is, one line of help, and the section of ``--help``
it stands in. ``pqreg --help`` and completion of command names read only this table.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

import typer
from typer.core import TyperCommand, TyperGroup

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True, slots=True)
class Entry:
    """One sub-command: ``target`` is ``module:attribute``, a function or a ``typer.Typer`` of several commands."""

    name: str
    target: str
    help: str
    section: str


COMMANDS: tuple[Entry, ...] = (
    Entry("push", "pqreg_cli.push:push", "Sign a directory and publish it as a release.", "Publish"),
    Entry("sign", "pqreg_cli.sign:sign", "Sign what was pushed with Hugging Face's tools.", "Publish"),
    Entry("draft", "pqreg_cli.draft:app", "Look at what was pushed so, and drop it.", "Publish"),
    Entry("tag", "pqreg_cli.tag:tag", "Point a tag at a release, or renew it.", "Publish"),
    Entry("rm", "pqreg_cli.tag:rm", "Withdraw a tag; releases are never removed.", "Publish"),
    Entry("grant", "pqreg_cli.grant:app", "Say who may open a sealed release.", "Publish"),
    Entry("reseal", "pqreg_cli.reseal:reseal", "Seal a release anew under a key nobody has.", "Publish"),
    Entry("mirror", "pqreg_cli.mirror:app", "Keep copies on a Hugging Face Hub; import from one.", "Publish"),
    Entry("key", "pqreg_cli.key:app", "Make, show, export and revoke signing identities.", "Publish"),
    Entry("status", "pqreg_cli.status:app", "Say what a namespace has revoked.", "Publish"),
    Entry("pull", "pqreg_cli.pull:pull", "Fetch a release and verify every byte of it.", "Use"),
    Entry("verify", "pqreg_cli.verify:verify", "Verify a directory, or a release in the registry.", "Use"),
    Entry("load", "pqreg_cli.load:load", "Load verified tensors, and show where the time went.", "Use"),
    Entry("exec", "pqreg_cli.exec:exec_", "Run a program on a verified release, laid out in memory.", "Use"),
    Entry("gateway", "pqreg_cli.gateway:gateway", "Serve verified releases to Hugging Face's tools here.", "Use"),
    Entry("bundle", "pqreg_cli.bundle:app", "Carry releases to sites without a network.", "Use"),
    Entry("ls", "pqreg_cli.show:ls", "List repositories, tags and releases.", "Use"),
    Entry("show", "pqreg_cli.show:show", "Show what a release holds and who signed it.", "Use"),
    Entry("log", "pqreg_cli.log:app", "Look at the registry's transparency log.", "Use"),
    Entry("trust", "pqreg_cli.trust:app", "Decide whose signatures to believe.", "Use"),
    Entry("audit", "pqreg_cli.audit:app", "Hold a registry's whole log against the trust file.", "Audit"),
    Entry("login", "pqreg_cli.login:login", "Keep a registry and a token in the config file.", "Registry"),
    Entry("logout", "pqreg_cli.login:logout", "Remove them from the config file.", "Registry"),
    Entry("whoami", "pqreg_cli.login:whoami", "Say what the token allows.", "Registry"),
    Entry("serve", "pqreg_cli.serve:serve", "Run a registry service.", "Registry"),
    Entry("witness", "pqreg_cli.witness:app", "Cosign the checkpoints of transparency logs.", "Registry"),
    Entry("token", "pqreg_cli.token:app", "Create, list and revoke access tokens.", "Registry"),
    Entry("events", "pqreg_cli.events:app", "Look at, export and check the record of who changed what.", "Registry"),
    Entry("fsck", "pqreg_cli.fsck:fsck", "Verify again everything a registry stores, and repair it.", "Registry"),
    Entry("gc", "pqreg_cli.gc:gc", "Remove what no release or draft refers to.", "Registry"),
    Entry("backup", "pqreg_cli.backup:backup", "Copy a registry's catalogue, log and configuration.", "Registry"),
    Entry("restore", "pqreg_cli.restore:restore", "Make a registry again from a backup.", "Registry"),
    Entry("replicate", "pqreg_cli.replicate:replicate", "Bring one registry up to another.", "Registry"),
    Entry("demo", "pqreg_cli.demo:demo", "See all of it at work on this machine, in a minute.", "About"),
    Entry("version", "pqreg_cli.version:version", "Say which versions this is made of.", "About"),
)
_EXAMPLES = re.compile(r"\n\n(?=Examples?:\n)")
_BY_NAME = {entry.name: entry for entry in COMMANDS}


class LazyGroup(TyperGroup):
    """The top-level command: knows the names of its sub-commands, loads one when it is asked for."""

    def __init__(self, **arguments: Any) -> None:
        """Fill the group with stand-ins that only have a name and a line of help."""
        super().__init__(**arguments)
        self._loaded: dict[str, Any] = {}
        self.commands = {entry.name: TyperCommand(entry.name, help=entry.help) for entry in COMMANDS}

    def get_command(self, ctx: Any, cmd_name: str) -> Any:  # noqa: ARG002  click's signature
        """The real sub-command; its module is imported here."""
        if cmd_name not in _BY_NAME:
            return None
        if cmd_name not in self._loaded:
            self._loaded[cmd_name] = load(_BY_NAME[cmd_name])
        return self._loaded[cmd_name]

    def format_commands(self, ctx: Any, formatter: Any) -> None:  # noqa: ARG002  click's signature
        """The sub-commands by section, from the table."""
        width = max(map(len, self.commands))
        for section, entries in _sections():
            with formatter.section(section):
                formatter.write_dl([(f"{entry.name:<{width}}", entry.help) for entry in entries])

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Names from the table; completing must not import every sub-command."""
        if incomplete.startswith("-"):
            return super().shell_complete(ctx, incomplete)
        stand_ins = TyperGroup(name=self.name, commands=dict(self.commands))
        return TyperGroup.shell_complete(stand_ins, _context(stand_ins, ctx), incomplete)


def load(entry: Entry) -> Any:
    """Import the module of a sub-command and make a command of it."""
    module, _, attribute = entry.target.partition(":")
    target = getattr(import_module(module), attribute)
    if not isinstance(target, typer.Typer):
        function, target = target, new_app()
        target.command(entry.name)(function)
    command = typer.main.get_command(target)
    command.name = entry.name
    keep_examples(command)
    return command


def keep_examples(command: Any) -> None:
    """Mark the paragraph of examples in the help of ``command`` and of all below it: it is not to be wrapped."""
    if command.help:
        command.help = _EXAMPLES.sub("\n\n\b\n", command.help)
    for below in getattr(command, "commands", {}).values():
        keep_examples(below)


def new_app(**arguments: Any) -> typer.Typer:
    """A Typer as all of ours are: plain help that reads the same on a terminal and in a log, errors left to main()."""
    return typer.Typer(
        rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False, no_args_is_help=True, **arguments
    )


def _sections() -> Iterator[tuple[str, list[Entry]]]:
    for section in dict.fromkeys(entry.section for entry in COMMANDS):
        yield section, [entry for entry in COMMANDS if entry.section == section]


def _context(command: Any, parent: Any) -> Any:
    return type(parent)(command, parent=parent.parent, info_name=parent.info_name)
