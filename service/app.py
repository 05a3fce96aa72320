"""The API as an ASGI application: `uvicorn service.app:create_app --factory --timeout-graceful-shutdown 5`.

Neither torch nor ray is imported here; costs load torch in a thread when a request first needs one counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from importlib.metadata import version

from fastapi import Depends, FastAPI
from starlette.concurrency import run_in_threadpool

from db.engine import make_engine
from db.errors import DatabaseUnavailable
from db.upgrades import upgrade
from service import auth, errors, logs, openapi, stopping
from service.catalog import routes as catalog
from service.cluster import routes as cluster
from service.costs import CostCache
from service.cursors import Cursors
from service.dashboard import pages as dashboard
from service.database_metrics import DatabaseMetrics
from service.effects import routes as effects
from service.fronts import routes as fronts
from service.fronts import warming
from service.health import routes as health
from service.metrics import Metrics
from service.middleware import HostCheck, Watch
from service.previews import routes as previews
from service.queries import strict_query
from service.room import Room
from service.schedules import routes as schedules
from service.searches import routes as searches
from service.settings import ServiceSettings
from service.state import Service
from service.trials import routes as trials

RETRY_SECONDS = 5.0
ROUTERS = (
    health.router, auth.router, openapi.router, searches.router, trials.router, fronts.router, effects.router,
    schedules.router, previews.router, catalog.router, cluster.router, dashboard.router,
)  # fmt: skip


def create_app(settings: ServiceSettings | None = None) -> FastAPI:
    """The application. settings: default from the environment. Raises ValueError for settings that are not safe."""
    settings = settings or ServiceSettings()
    logs.configure()
    settings.load_plugins()
    engine = make_engine(settings.url, busy_seconds=settings.busy_seconds)
    metrics = Metrics()
    metrics.registry.register(DatabaseMetrics(engine))
    app = FastAPI(
        title="attune",
        version=version("attune"),
        lifespan=_lifespan,
        dependencies=[Depends(auth.authorised), Depends(strict_query)],
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.service = Service(settings, engine, CostCache(engine), Cursors(settings.secret), metrics, Room(engine))
    for router in ROUTERS:
        app.include_router(router)
    openapi.install(app)
    errors.install(app)
    app.add_middleware(HostCheck, settings=settings)
    app.add_middleware(Watch, metrics=metrics)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Brings the schema up to date, and lets event streams end when the process is asked to stop."""
    service: Service = app.state.service
    started: list[asyncio.Task[None]] = []
    with stopping.noticed(service.stopping):
        if service.settings.upgrade and not await _upgraded(service):
            started.append(asyncio.create_task(_keep_upgrading(service)))
        elif service.settings.upgrade:
            started.append(asyncio.create_task(_warm(service)))
        try:
            yield
        finally:
            service.stopping.set()
            # not cancelled: what they have begun in a thread goes on, on connections that nobody would close any more
            await asyncio.gather(*started, return_exceptions=True)
            await run_in_threadpool(service.engine.dispose)


async def _warm(service: Service) -> None:
    await run_in_threadpool(warming.read_longest, service.engine, service.stopping.is_set)


async def _upgraded(service: Service) -> bool:
    try:
        await run_in_threadpool(upgrade, service.engine)
    except DatabaseUnavailable as error:
        # without a database the process still tells its supervisor and its clients so
        errors.log_outage(error)
        return False
    return True


async def _keep_upgrading(service: Service) -> None:
    while not service.stopping.is_set() and not await _upgraded(service):
        with suppress(TimeoutError):
            await asyncio.wait_for(service.stopping.wait(), RETRY_SECONDS)
