"""attune published: the literature's figures, and beside them what attune counts. It needs no service."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Annotated

import typer

from service.cli.failures import SEARCH_FAILED
from service.formats import MISSING

if TYPE_CHECKING:
    from rich.table import Table

    from search.published import Check, Comparison, PublishedRow


def register(app: typer.Typer) -> None:
    app.command("published", rich_help_panel="Without a service")(published)


def published(
    check: Annotated[
        bool, typer.Option("--check", help="Count every row again, beside what its paper printed.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """The literature's figures: accuracy and cost of published placements.

    With --check, exit code 1 says that a printed cost differs from ours without a known reason.
    """
    from search import published as literature

    if not check:
        _print_rows(literature.published(), as_json)
        return
    checks = list(literature.check())
    if as_json:
        typer.echo(json.dumps([{"row": found.row.to_json(), **found.to_json()} for found in checks]))
    else:
        _print_checks(checks)
    raise typer.Exit(SEARCH_FAILED if any(found.unexplained for found in checks) else 0)


def _print_checks(checks: list[Check]) -> None:
    """One table for each source, with the reasons of what deviates below it, then a sum."""
    from rich.console import Console
    from rich.text import Text

    console = Console()
    for source, group in groupby(checks, key=lambda found: found.row.source):
        console.print(Text(source, style="bold"))
        reasons: dict[str, int] = {}
        table = _table("backbone", "module", "placement", "M params", "ours", "GMAC", "ours", "")
        for found in group:
            row = found.row
            said = _verdict(found, reasons)
            params, macs = (
                _pair(row.params_m, found.params_m, found.params, 6),
                _pair(row.gmacs, found.gmacs, found.macs, 9),
            )
            table.add_row(row.backbone, row.module, row.placement, *params, *macs, said)
        console.print(table)
        for reason, number in reasons.items():
            console.print(Text(f"({number}) {reason}", style="dim"))
        console.print()
    compared = [one for found in checks for one in found.comparisons]
    exact = sum(one.verdict == "exact" for one in compared)
    console.print(f"{exact} of {len(compared)} printed costs are ours to every digit; {len(checks)} rows.")


def _pair(printed: object, compared: Comparison | None, ours: int | None, exponent: int) -> tuple[str, str]:
    """What was printed, and ours with as many digits (three where nothing was printed)."""
    if compared is not None:
        return str(compared.printed), str(compared.ours)
    return str(printed or MISSING), MISSING if ours is None else f"{ours / 10**exponent:.3f}"


def _verdict(found: Check, reasons: dict[str, int]) -> str:
    """In words, with the numbers of its reasons; new reasons are added."""
    if found.params is None:
        return "not built here"
    if not found.comparisons:
        return "no cost printed"
    deviating = [one for one in found.comparisons if one.verdict == "deviates"]
    told = dict.fromkeys(one.reason or "no reason is known" for one in deviating)
    numbers = sorted(reasons.setdefault(reason, len(reasons) + 1) for reason in told)
    return f"deviates ({', '.join(map(str, numbers))})" if numbers else "exact"


def _print_rows(rows: Iterable[PublishedRow], as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps([row.to_json() for row in rows]))
        return
    from rich.console import Console

    table = _table("source", "data set", "backbone", "module", "placement", "M params", "GMAC", "top-1 %")
    for row in rows:
        cells = (row.params_m, row.gmacs, round(100 * row.metrics["top1"], 2) if "top1" in row.metrics else None)
        shown = [MISSING if cell is None else str(cell) for cell in cells]
        table.add_row(row.source, row.dataset, row.backbone, row.module, row.placement, *shown)
    Console().print(table)


def _table(*headings: str) -> Table:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        table.add_column(heading)
    return table
