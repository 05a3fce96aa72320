"""/api/v1/catalog: what can be named in a request, with the JSON schema of each thing's options."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from db import catalog
from db.engine import reading
from search import published
from search.attention import ATTENTION
from search.backbones import BACKBONES
from search.metrics import METRICS
from search.recipes import RECIPES, Recipe
from search.strategies import EARLY_STOPPING, STRATEGIES, EarlyStoppingInfo, StrategyInfo
from service.catalog import schemas
from service.fronts.logic import MEASURED
from service.searches.submission import published_datasets, published_weights, unusable_datasets
from service.state import House

router = APIRouter(prefix="/api/v1/catalog", tags=["catalog"])


@router.get("/modules", summary="Attention modules")
def list_modules() -> schemas.Modules:
    items = [
        schemas.ModuleOut(
            name=info.name,
            title=info.title,
            source=info.source,
            positions=list(info.positions),
            has_reduction=info.has_reduction,
            identity_at_start=info.identity_at_start,
            options=info.options.model_json_schema(),
        )
        for info in ATTENTION
    ]
    return schemas.Modules(items=items)


@router.get("/backbones", summary="Backbones")
def list_backbones() -> schemas.Backbones:
    items = [
        schemas.BackboneOut(
            name=info.name,
            title=info.title,
            source=info.source,
            pretrained_as=info.pretrained_as,
            options=info.options.model_json_schema(),
        )
        for info in BACKBONES
    ]
    return schemas.Backbones(items=items)


@router.get("/datasets", summary="Data sets that workers have")
def list_datasets(house: House) -> schemas.Datasets:
    with reading(house.engine) as session:
        rows = {row.name: row for row in catalog.datasets(session)}
        entries = published_datasets(session)
        unusable = unusable_datasets(session)
    items = [
        schemas.DatasetOut(**entry.model_dump(mode="json"), published_at=rows[name].published_at)
        for name, entry in entries.items()
    ]
    missing = [schemas.UnavailableOut(**one.model_dump()) for name, one in unusable.items() if name not in entries]
    return schemas.Datasets(items=items, unavailable=missing)


@router.get("/weights", summary="Initial weights that workers have")
def list_weights(house: House) -> schemas.WeightsList:
    with reading(house.engine) as session:
        known = published_weights(session)
    return schemas.WeightsList(
        items=[schemas.WeightsOut(name=name, fingerprint=digest) for name, digest in known.items()]
    )


@router.get("/strategies", summary="Strategies, and ways of early stopping")
def list_strategies() -> schemas.Strategies:
    return schemas.Strategies(
        items=[_told(info) for info in STRATEGIES], early_stopping=[_told(i) for i in EARLY_STOPPING]
    )


def _told(info: StrategyInfo | EarlyStoppingInfo) -> schemas.StrategyOut:
    return schemas.StrategyOut(
        name=info.name, title=info.title, source=info.source, options=info.options.model_json_schema()
    )


@router.get("/recipes", summary="Training recipes")
def list_recipes() -> schemas.Recipes:
    options = Recipe.model_json_schema()
    items = [
        schemas.RecipeOut(
            name=info.name,
            title=info.title,
            source=info.source,
            recipe=info.recipe.model_dump(mode="json"),
            options=options,
        )
        for info in RECIPES
    ]
    return schemas.Recipes(items=items)


@router.get("/metrics", summary="Metrics")
def list_metrics() -> schemas.MetricList:
    items = [
        schemas.MetricOut(
            name=metric.name,
            title=metric.title,
            goal=metric.goal,
            unit=metric.unit,
            kind=metric.kind,
            objective=metric.name in METRICS,
        )
        for metric in (MEASURED | METRICS).values()
    ]
    return schemas.MetricList(items=items)


@router.get("/published", summary="The literature's rows")
def list_published(
    house: House,
    check: Annotated[
        bool, Query(description="Beside each row what attune counts; the first time takes seconds.")
    ] = False,
) -> schemas.Published:
    if not check:
        return schemas.Published(items=[schemas.PublishedOut(**row.to_json()) for row in published.published()])
    with house.costs.counting() as store:
        found = list(published.check(store))
    return schemas.Published(items=[schemas.PublishedOut(**one.row.to_json(), check=one.to_json()) for one in found])
