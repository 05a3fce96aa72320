"""/api/v1/previews"""

from __future__ import annotations

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool

from service.body import Body
from service.openapi import SPEC_BODY
from service.previews import logic
from service.previews.schemas import Preview
from service.state import House

router = APIRouter(prefix="/api/v1", tags=["searches"])


@router.post("/previews", summary="What a request would mean", openapi_extra=SPEC_BODY)
async def preview(house: House, data: Body) -> Preview:
    """Count, sites, costs, controls and time of a search, without submitting it; wrong requests are told as by POST."""
    return await run_in_threadpool(logic.make, house, data)
