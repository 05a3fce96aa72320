"""Starting a search: the page, and drafts checked at every keystroke."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from db import catalog, searches
from db.engine import reading
from search.attention import ATTENTION
from search.backbones import BACKBONES
from search.recipes import RECIPES
from search.sites import PATTERN_NAMES
from search.strategies import EARLY_STOPPING, STRATEGIES
from service.body import Body
from service.dashboard import drafts, examples
from service.dashboard.rendering import page, rendered
from service.dashboard.routing import make_router
from service.state import UUID, House
from service.strips import module_colour, module_name

router = make_router()
RATIOS = (1, 2, 4, 8, 16, 32)


@router.get("/new")
def show_new(
    house: House,
    example: Annotated[str, Query(max_length=50)] = "demo",
    from_: Annotated[str | None, Query(alias="from", pattern=UUID, description="A search to start from.")] = None,
) -> Response:
    """Form, text and preview of a new search."""
    known = examples.listed()
    text = known.get(example, known["demo"]).text
    source = None
    with reading(house.engine) as session:
        datasets = [row.name for row in catalog.datasets(session)]
        if from_ is not None:
            source = searches.get(session, from_)
    if source is not None:
        text = drafts.as_yaml(drafts.concise(source.spec))
    return page(
        "new.html",
        page="new",
        text=text,
        source=source,
        examples=list(known.values()),
        example=None if source is not None else example,
        datasets=datasets,
        backbones=BACKBONES.names(),
        module_list=[(info.name, module_name(info.name), module_colour(info.name), info.title) for info in ATTENTION],
        ratios=RATIOS,
        patterns=PATTERN_NAMES,
        strategies=STRATEGIES.names(),
        stopping=EARLY_STOPPING.names(),
        recipes=RECIPES.names(),
    )


@router.post("/live/drafts")
async def check_draft(house: House, data: Body) -> Response:
    """A draft's text, its JSON, and what is wrong with it: quick enough for every keystroke."""
    draft = await run_in_threadpool(drafts.read, house, data)
    return JSONResponse({"text": draft.text, "request": draft.request, "problems": list(draft.problems)})


@router.post("/live/drafts/preview")
async def preview_draft(house: House, data: Body) -> Response:
    """What a request would mean, as it is shown; its costs are counted when nobody has asked for them before."""
    meaning, problems = await run_in_threadpool(drafts.meaning, house, data)
    shown = "" if meaning is None else rendered("preview.html", meaning=meaning)
    return JSONResponse({"problems": problems, "preview": shown})
