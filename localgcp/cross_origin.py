"""Cross-origin requests to an API that pages of every origin may call (`Api.any_origin`)."""


def open_to(origin: str | None, wanted_headers: str = "") -> dict[str, str]:
    """Headers of an answer; with the headers that a preflight wants, of the answer to that."""
    if origin is None:
        return {}
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET,POST,PUT,PATCH,DELETE,OPTIONS",
        "Access-Control-Expose-Headers": "Content-Range, ETag, Location, Range, X-Goog-Generation, X-Goog-Hash",
        "Vary": "Origin",
    } | ({"Access-Control-Allow-Headers": wanted_headers} if wanted_headers else {})
