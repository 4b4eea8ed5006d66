"""The OpenAPI document: ninja's, with what ninja cannot know."""

from typing import Any, Final

from app.web.problems import CONTENT_TYPE

_PROBLEM: Final = "#/components/schemas/ProblemDocument"
# What any operation may answer that asks for a key, beside what it declares itself.
_ALWAYS: Final[dict[str, dict[str, Any]]] = {
    "308": {
        "description": "The organisation's data is in another region",
        "headers": {"Location": {"description": "The same address there.", "schema": {"type": "string"}}},
    },
    "500": {"description": "Internal Server Error"},
}


def complete(document: dict[str, Any]) -> None:
    """Problems have their own content type; the definitions of request bodies are components, as every tool expects."""
    components = document["components"]["schemas"]
    for operation in (operation for path in document["paths"].values() for operation in path.values()):
        answers = operation["responses"]
        for status, answer in _ALWAYS.items():
            answers.setdefault(status, answer | {"content": {"application/json": {"schema": {"$ref": _PROBLEM}}}})
        for answer in answers.values():
            content = answer.get("content", {})
            if content.get("application/json", {}).get("schema") == {"$ref": _PROBLEM}:
                answer["content"] = {CONTENT_TYPE: content["application/json"]}
        for media in operation.get("requestBody", {}).get("content", {}).values():
            components.update(media["schema"].pop("$defs", {}))
