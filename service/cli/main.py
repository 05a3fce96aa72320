"""The command `attune`. Nothing heavy is imported here: every command loads what it needs when it runs."""

from __future__ import annotations

import typer

from service.cli import cluster, costs, data, published, queries, requests, running, schedules
from service.cli.failures import Group

app = typer.Typer(
    name="attune",
    cls=Group,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=True,
    help="Where in a CNN should attention go, which module, and how strong: searched on your data, answered as a "
    "Pareto front.",
    epilog="The service is found at ATTUNE_URL (default http://127.0.0.1:8000), with ATTUNE_TOKEN if it asks for one. "
    "Exit codes: 0 done, 1 the search failed, 2 wrong usage or request, 3 no service.",
)
for group in (running, cluster, requests, queries, data, costs, published, schedules):
    group.register(app)


def run() -> None:
    """Entry point of the console script."""
    app()


if __name__ == "__main__":
    run()
