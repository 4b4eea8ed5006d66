"""The request body of `POST /api/validations`, for the OpenAPI document.

Written out, because the application never parses a body itself: a sandboxed child does.
"""

from typing import Any, Final

from app.validations.engines.limits import MAX_EXPRESSION_LENGTH, MAX_RULES
from app.validations.engines.results import Severity, Validator

_RULE: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["expression"],
    "additionalProperties": False,
    "properties": {
        "id": {"type": "string", "maxLength": 60},
        "expression": {
            "type": "string",
            "maxLength": MAX_EXPRESSION_LENGTH,
            "description": "CEL; the document is the variable `document`. The rule holds when the result is true.",
        },
        "message": {"type": "string"},
        "severity": {"type": "string", "enum": list(Severity), "default": "ERROR"},
    },
}
_ORDER: Final = {"id": 7, "items": [{"sku": "A-1", "quantity": 2}]}
_XSD: Final = (
    '<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema">'
    '<xs:element name="quantity" type="xs:positiveInteger"/></xs:schema>'
)

SUBMISSION: Final[dict[str, Any]] = {
    "required": True,
    "content": {
        "application/json": {
            "schema": {
                "title": "Submission",
                "type": "object",
                "required": ["validator", "document"],
                "additionalProperties": False,
                "properties": {
                    "validator": {"type": "string", "enum": list(Validator)},
                    "document": {
                        "description": "A text is a file's content; for the JSON validators, any other value is the "
                        "document itself. Only a text has lines and columns to report."
                    },
                    "schema": {"description": "A JSON Schema (as JSON or text) or an XML Schema (as text)."},
                    "rules": {"type": "array", "minItems": 1, "maxItems": MAX_RULES, "items": _RULE},
                    "filename": {"type": "string", "maxLength": 255},
                },
            },
            "examples": {
                "json-schema": {
                    "summary": "JSON Schema",
                    "value": {
                        "validator": "json-schema",
                        "document": _ORDER,
                        "schema": {"type": "object", "required": ["id"], "properties": {"id": {"type": "integer"}}},
                    },
                },
                "xml-schema": {
                    "summary": "XML with XSD",
                    "value": {"validator": "xml-schema", "document": "<quantity>2</quantity>", "schema": _XSD},
                },
                "cel": {
                    "summary": "CEL rules",
                    "value": {
                        "validator": "cel",
                        "document": _ORDER,
                        "rules": [
                            {
                                "id": "quantities",
                                "expression": "document.items.all(item, item.quantity > 0)",
                                "message": "every quantity is positive",
                            }
                        ],
                    },
                },
            },
        },
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["validator", "document"],
                "properties": {
                    "validator": {"type": "string", "enum": list(Validator)},
                    "document": {"type": "string", "format": "binary"},
                    "schema": {"type": "string", "format": "binary"},
                    "rules": {"type": "string", "description": "The list of rules, as JSON."},
                    "filename": {"type": "string"},
                },
            }
        },
    },
}

IDEMPOTENCY_KEY: Final[dict[str, Any]] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
    "description": "For 24 hours, a second request with this key is answered with what the first one made.",
}
PREFER: Final[dict[str, Any]] = {
    "name": "Prefer",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "`respond-async` (RFC 7240): answer 202 at once.",
}
