# SPDX-License-Identifier: Apache-2.0
"""The ``pqreg`` command and its error boundary.

Exit status: 0 good; 1 refused by verification or policy; 2 usage; 3 network, server, storage or a defect of this
software; 130 interrupted; 141 when whoever read the output went away. Nothing but this module decides it, and nothing
escapes as a traceback unless ``--debug`` is given.
"""

from __future__ import annotations

import contextlib
import os
import sys
import traceback
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from pq_registry import __version__
from pq_registry.errors import EXIT_INTERRUPTED, EXIT_USAGE, StorageError, UsageError
from pqreg_cli.lazy import LazyGroup, keep_examples
from pqreg_cli.problem import Problem

if TYPE_CHECKING:
    from collections.abc import Sequence

EXIT_BROKEN_PIPE = 141
"""What a shell reports for a process that SIGPIPE ended."""

app = typer.Typer(
    cls=LazyGroup,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings: PQREG_REGISTRY, PQREG_TOKEN, PQREG_TRUST, PQREG_KEY, or the config file (`pqreg login`). "
    "Exit status: 0 good, 1 refused by verification or policy, 2 usage, 3 network or server, 4 a log that contradicts "
    "itself, 130 interrupted.",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"pqreg {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def pqreg(
    context: typer.Context,
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error. Works anywhere.")] = False,
) -> None:
    """Publish and fetch AI models that are signed with post-quantum hybrids and verified before use.

    Examples:
      pqreg demo                                      see it at work on this machine
      pqreg push ./model acme/minilm:v1 --key alice.pqkey
      pqreg pull acme/minilm:v1 ./minilm
      pqreg verify ./minilm
    """
    del version, debug
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its exit status."""
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run one command, print what went wrong if something did, and answer the exit status."""
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show a character shows its code; that is no reason to fail.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    as_json, debug = "--json" in options, "--debug" in options
    arguments = [word for word in options if word != "--debug"] + arguments[len(options) :]
    try:
        # What stands behind -- is another program's business only if it is one that is run.
        _refuse_empty(options if options[:1] == ["exec"] else arguments)
        status = _invoke(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = EXIT_INTERRUPTED
    except SystemExit as exit_request:
        # typer and rich turn a broken pipe into exit(1), which here means "refused".
        if not isinstance(exit_request.__context__, BrokenPipeError):
            raise
        return _pipe_broken()
    except BrokenPipeError:
        return _pipe_broken()
    except MemoryError as error:
        lacking = StorageError("there is not enough memory", hint="end other programs, or raise the limit (ulimit -v)")
        return _report(lacking.with_traceback(error.__traceback__), as_json=as_json, debug=debug)
    except OSError as error:
        # The library lets none out, so this is the output: a full disk, a terminal that went away.
        unwritten = StorageError("the output cannot be written", found=error.strerror)
        return _report(unwritten, as_json=as_json, debug=debug)
    except Exception as error:  # noqa: BLE001  the boundary: whatever it is, it is reported and not thrown at the user
        return _report(error, as_json=as_json, debug=debug)
    if status == EXIT_INTERRUPTED:
        Problem(
            "/problems/interrupted",
            "interrupted",
            "interrupted",
            EXIT_INTERRUPTED,
            hint="run the same command again; push and pull continue where they stopped",
        ).show(as_json=as_json)
    return status


def _refuse_empty(arguments: list[str]) -> None:
    # As a path, an empty argument would mean the current directory: `pqreg pull REF "$OUT"` without an OUT.
    if "" in arguments:
        raise UsageError(
            f"argument {arguments.index('') + 1} is empty",
            expected="a value",
            found="nothing, as from a variable that is not set",
            hint="check the variables of your script",
        )


def _invoke(arguments: list[str]) -> int:
    command = typer.main.get_command(app)
    keep_examples(command)
    result: Any = command.main(arguments, prog_name="pqreg", standalone_mode=False)
    return result if isinstance(result, int) else 0


def _report(error: Exception, *, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exception(error)
    if type(error).__name__ == "NoArgsIsHelpError":
        print(error, file=sys.stderr)
        return EXIT_USAGE
    if type(error).__name__ == "Abort":
        problem = Problem.usage("the answer was not given", "run it on a terminal, or give the options it asks for")
    elif hasattr(error, "format_message"):
        problem = Problem.usage(error.format_message(), f"{_command_of(error)} --help")
    else:
        problem = Problem.of(error)
    problem.show(as_json=as_json)
    return problem.exit


def _command_of(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return context.command_path if context is not None else "pqreg"


def _pipe_broken() -> int:
    # Python flushes standard output once more at exit; give it somewhere to go.
    with contextlib.suppress(OSError, ValueError):
        descriptor = os.open(os.devnull, os.O_WRONLY)
        os.dup2(descriptor, sys.stdout.fileno())
        os.close(descriptor)
    return EXIT_BROKEN_PIPE
