"""`GET /metrics`: the figures of this process, for Prometheus and autoscalers. An ordinary Litestar handler."""

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency

from gateway.http.service import Service


@get("/metrics", media_type="text/plain", summary="Figures of this process, in Prometheus' text format or OpenMetrics")
async def metrics(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> Response[bytes]:
    page, content_type = await service.page.exposition(request.headers.get("accept", ""))
    return Response(page, headers={"content-type": content_type})
