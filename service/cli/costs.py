"""Commands that need no service: the cost of an architecture, the database's schema."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer

from service.cli.failures import refuse

if TYPE_CHECKING:
    from search.architecture import Architecture, Backbone
    from search.sites import Shape

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    app.command("cost", rich_help_panel="Without a service")(cost)
    database = typer.Typer(help="The database's schema.", no_args_is_help=True)
    database.command("upgrade")(upgrade)
    app.add_typer(database, name="db", rich_help_panel="Without a service")


def cost(
    backbone: Annotated[str, typer.Argument(help="The backbone's name, as resnet50.")],
    module: Annotated[
        list[str] | None, typer.Option(help="An attention module; repeated: stacked in one place.")
    ] = None,
    reduction: Annotated[int | None, typer.Option(help="Reduction ratio r of the modules.")] = None,
    option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="A module's option, or MODULE.KEY; repeatable.")
    ] = None,
    position: Annotated[str | None, typer.Option(help="Where in a block; default: the module's own place.")] = None,
    pattern: Annotated[
        str, typer.Option(help="Which blocks: every, first, last, alternate, or numbers as 1,3.")
    ] = "every",
    stages: Annotated[str | None, typer.Option(help="Stages as 1,2,3; default: all.")] = None,
    image: Annotated[str, typer.Option(help="Channels, height and width of an image.")] = "3x224x224",
    classes: Annotated[int, typer.Option(min=1, max=1_000_000, help="Outputs of the classifier.")] = 1000,
    width: Annotated[
        float | None, typer.Option(help="Backbone: channels of stage 1; MobileNet: multiplies all channels.")
    ] = None,
    widen: Annotated[float | None, typer.Option(help="Backbone: multiplies the channels of every block.")] = None,
    stem: Annotated[str | None, typer.Option(help="Backbone: imagenet or cifar.")] = None,
    stride_in_1x1: Annotated[bool, typer.Option("--stride-in-1x1", help="Backbone: stride in the first 1x1.")] = False,
    backbone_option: Annotated[
        list[str] | None, typer.Option(metavar="KEY=VALUE", help="Backbone: any option.")
    ] = None,
    memory: Annotated[
        bool, typer.Option("--memory", help="Also the bytes that the modules keep for the backward pass, per image.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Count parameters and multiply-adds of a backbone with attention, exactly and without training."""
    from search.architecture import Backbone, Task
    from search.cost import CostTable

    options = _pairs(backbone_option, "--backbone-option")
    named = {"width": _whole(width), "widen": _whole(widen), "stem": stem, "stride_in_1x1": stride_in_1x1 or None}
    options |= {name: value for name, value in named.items() if value is not None}
    network = Backbone.make(backbone, **options)
    shape = _shape(image)
    modules = _modules(module or [], reduction, _pairs(option, "--option"))
    architecture = _place(network, shape, modules, position, pattern, stages)
    _check(architecture, shape)
    table = CostTable(network, Task(shape, classes))
    total, base = table.architecture(architecture), table.backbone()
    kept = table.activations(architecture) if memory else None
    if as_json:
        extra = {} if kept is None else {"activation_bytes": kept}
        typer.echo(json.dumps({"params": total.params, "macs": total.macs, **extra}))
        return
    _print_cost(architecture, shape, total, base)
    if kept is not None:
        typer.echo(f"In training the modules keep {kept:,} bytes (float32) of each image for the backward pass.")


def _check(architecture: Architecture, shape: Shape) -> None:
    """SpecError with every problem once, where many blocks have the same."""
    from search.errors import SpecError

    first = {problem.message: problem for problem in reversed(tuple(architecture.problems(shape)))}
    if first:
        raise SpecError(reversed(first.values()))


def _print_cost(architecture: Architecture, shape: Shape, total: Any, base: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from service import formats
    from service.cli.drawing import strip_text
    from service.strips import make_strip

    strip = make_strip(architecture.to_json(), shape)
    console = Console()
    console.print(strip_text(strip), strip.words, sep="   ")
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for heading in ("", "total", "exactly", "over the backbone"):
        table.add_column(heading, justify="right" if heading else "left", style="bold" if not heading else "")
    for name, all_of_it, bare, unit in (
        ("multiply-adds", total.macs, base.macs, "MAC"),
        ("parameters", total.params, base.params, ""),
    ):
        added = (
            f"+{formats.scaled(all_of_it - bare, unit)}"
            if all_of_it >= bare
            else formats.scaled(all_of_it - bare, unit)
        )
        more = f"{added} ({formats.relative(all_of_it, bare)})" if all_of_it != bare else formats.MISSING
        table.add_row(name, formats.scaled(all_of_it, unit), f"{all_of_it:,}", more)
    console.print(table)


def _modules(kinds: list[str], reduction: int | None, options: dict[str, Any]) -> list[dict[str, Any]]:
    """The modules with their options. An option goes to every module that has it, or to one, as in cbam.kernel."""
    from search.attention import ATTENTION

    given = options if reduction is None else {"reduction": reduction, **options}
    infos = [ATTENTION.get(kind, "--module") for kind in kinds]
    for name in given:
        kind, _, key = name.rpartition(".")
        if not any(key in info.options.model_fields and kind in ("", info.name) for info in infos):
            known = sorted({field for info in infos for field in info.options.model_fields})
            raise refuse(
                f"No module here has the option {name!r}. Valid: {', '.join(known) or 'none without --module'}."
            )
    return [
        {
            "kind": info.name,
            **{n.rpartition(".")[2]: v for n, v in given.items() if n.rpartition(".")[0] in ("", info.name)
               and n.rpartition(".")[2] in info.options.model_fields},
        }
        for info in infos
    ]  # fmt: skip


def _place(
    backbone: Backbone,
    shape: Shape,
    modules: list[dict[str, Any]],
    position: str | None,
    pattern: str,
    stages: str | None,
) -> Architecture:
    """The modules, stacked, in every chosen block of every chosen stage."""
    from search.architecture import Architecture, Module
    from search.errors import SpecError
    from search.sites import POSITIONS, Site, find_stage, pattern_blocks

    if not modules:
        return Architecture.make(backbone, {})
    if position is not None and position not in POSITIONS:
        raise SpecError.one("--position", f"{position!r} is not a position.", POSITIONS)
    geometry = backbone.stages(shape)
    chosen = (
        geometry if stages is None else tuple(find_stage(geometry, n, "--stages") for n in _numbers(stages, "--stages"))
    )
    blocks_of = tuple(_numbers(pattern, "--pattern")) if pattern[:1].isdigit() else pattern
    sites: dict[Site, list[Module]] = {}
    for values in modules:
        module = Module.parse(values["kind"], {k: v for k, v in values.items() if k != "kind"}, "--option")
        place: Any = position or module.info.positions[0]
        for stage in chosen:
            numbers = pattern_blocks(blocks_of, len(stage.blocks), "--pattern")
            if place == "stage_end":
                numbers = (len(stage.blocks),)
            for block in numbers:
                sites.setdefault(Site(stage.number, block, place), []).append(module)
    return Architecture.make(backbone, sites)


def _shape(text: str) -> Shape:
    match = re.fullmatch(r"([0-9]{1,5})x([0-9]{1,5})x([0-9]{1,5})", text.lower().replace("×", "x"))
    sizes = [int(part) for part in match.groups()] if match else [0]
    if 0 in sizes:
        raise refuse(f"--image: {text!r} is not channels x height x width, as 3x224x224.")
    channels, height, width = sizes
    return (channels, height, width)


def _numbers(text: str, field: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isascii() and part.isdigit() for part in parts) or len({*map(int, parts)}) < len(parts):
        raise refuse(f"{field}: {text!r} is not a list of different numbers, as 1,2,3.")
    return [int(part) for part in parts]


def _whole(number: float | None) -> float | int | None:
    """8 for 8.0: some backbones count channels, others multiply them."""
    return int(number) if number is not None and number.is_integer() else number


def _pairs(written: list[str] | None, field: str) -> dict[str, Any]:
    """key=value, the value in JSON where it is JSON, else text."""
    found: dict[str, Any] = {}
    for text in written or []:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise refuse(f"{field}: {text!r} is not key=value.")
        try:
            found[key] = json.loads(value)
        except ValueError:
            found[key] = value
    return found


def upgrade(as_json: AsJson = False) -> None:
    """Create the database, or bring it to this version's schema (the service does so when it starts)."""
    from db.engine import make_engine
    from db.settings import DatabaseSettings
    from db.upgrades import upgrade as migrate

    engine = make_engine(DatabaseSettings().url)
    try:
        migrate(engine)
    finally:
        engine.dispose()
    shown = engine.url.render_as_string(hide_password=True)
    typer.echo(json.dumps({"database": shown, "upgraded": True}) if as_json else f"{shown} is up to date.")
