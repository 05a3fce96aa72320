"""What the routes share: the engine, the settings, counted costs; and types of parameters."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Path
from sqlalchemy import Engine
from starlette.requests import Request

from service.costs import CostCache
from service.cursors import Cursors
from service.metrics import Metrics
from service.room import Room
from service.settings import ServiceSettings

UUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"


@dataclass
class Service:
    """The parts of one API process. stopping: set when the process is asked to end."""

    settings: ServiceSettings
    engine: Engine
    costs: CostCache
    cursors: Cursors
    metrics: Metrics
    room: Room
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def the_service(request: Request) -> Service:
    return _service(request)


House = Annotated[Service, Depends(the_service)]
SearchId = Annotated[str, Path(pattern=UUID, description="A search's id.")]
ScheduleId = Annotated[str, Path(pattern=UUID, description="A schedule's id.")]
FireId = Annotated[str, Path(pattern=UUID, description="A fire's id.")]
TrialId = Annotated[str, Path(pattern=UUID, description="A trial's id.")]
