"""`GET /costs`: the cost report as a page, JSON or CSV. An ordinary Litestar handler; the work is done by another process."""

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency

from gateway.access.caller import Caller
from gateway.errors import Forbidden, InvalidInput
from gateway.http.service import Service
from gateway.reports import query
from gateway.reports.once import Form

TYPES: dict[Form, str] = {
    "html": "text/html; charset=utf-8",
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
}
HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'",
    "x-frame-options": "DENY",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "private, max-age=60",
}


@get(
    "/costs",
    media_type="text/html",
    summary="What every model cost: a page with filters",
    description="Query: by, since, until, model, tenant, view, amortize as in `steelyard costs`; energy no or yes; "
    "format html, json or csv.",
)
async def costs(service: NamedDependency[Service], request: Request[Any, Any, Any]) -> Response[bytes]:
    caller: Caller = request.state.caller
    if not caller.may("*"):
        raise Forbidden("cost reports show every model, and this key is limited to some")
    pairs = list(request.query_params.multi_items())
    forms = [value for name, value in pairs if name == "format" and value] or ["html"]
    if len(forms) > 1 or forms[0] not in TYPES:
        raise InvalidInput(f"format is one of: {', '.join(TYPES)}")
    form: Form = forms[0]
    asked = query.parse((name, value) for name, value in pairs if name != "format")
    data = await service.cost_page.answer(asked, form)
    return Response(data, headers={**HEADERS, "content-type": TYPES[form]})


HANDLERS = [costs]
