"""XML with XSD 1.0, by libxml2 through lxml.

Entities and DTDs are refused before libxml2 sees the document: a document type declaration is what entity bombs,
external entities and external subsets need, and no XSD validation needs one. A schema stands alone: what it would
import or include from elsewhere is refused, so libxml2 has no reason to open a file or a socket.
"""

import codecs
import re
from typing import Final

from lxml import etree

from app.validations.engines.limits import MAX_DEPTH, MAX_SCHEMA_BYTES
from app.validations.engines.results import Finding, Refused, Report, Severity, over_budget

_XSD: Final = "{http://www.w3.org/2001/XMLSchema}"
_DECLARATION = re.compile(r"<\?xml\s[^>]*?\bencoding\s*=\s*[\"']([A-Za-z][A-Za-z0-9._-]*)[\"']")
_PROLOG = re.compile(r"(?:\s++|<\?.*?\?>|<!--.*?-->)*+", re.DOTALL)
_ENCODINGS: Final = {"utf-8", "utf-16", "us-ascii", "ascii", "iso-8859-1", "iso-8859-15", "windows-1252"}
_MARKS: Final = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)


def decode(content: bytes, field: str) -> str:
    """The text of an XML file: by its byte order mark, else by its declaration, else UTF-8.

    Raises: Refused.
    """
    encoding, start = "utf-8", 0
    for mark, name in _MARKS:
        if content.startswith(mark):
            encoding, start = name, len(mark)
            break
    else:
        if content.startswith(b"<\x00?\x00"):
            encoding = "utf-16-le"
        elif content.startswith(b"\x00<\x00?"):
            encoding = "utf-16-be"
        elif declared := _DECLARATION.match(content[:200].decode("latin-1")):
            encoding = declared[1].lower()
    if encoding.removesuffix("-le").removesuffix("-be") not in _ENCODINGS:
        raise Refused(
            "bad-encoding",
            "The encoding is not supported",
            field=field,
            detail=f"the content is in {encoding[:40]}",
            remedy=f"use one of {', '.join(sorted(_ENCODINGS))}",
        )
    try:
        return content[start:].decode(encoding)
    except UnicodeDecodeError as error:
        raise Refused(
            "bad-encoding",
            f"The text is not {encoding.upper()}",
            field=field,
            detail=f"byte {start + error.start} is not {encoding.upper()}: {error.reason}",
            remedy="send the file in the encoding that it declares",
        ) from None


def validate(document: str, schema: str, report: Report) -> None:
    """Add the findings about `document`. Raises: Refused."""
    if len(schema.encode("utf-8", "replace")) > MAX_SCHEMA_BYTES:
        raise Refused(
            "schema-too-large",
            "The schema is too large",
            status=413,
            field="schema",
            detail=f"the schema has more than {MAX_SCHEMA_BYTES} bytes",
            remedy="split the schema",
        )
    etree.clear_error_log()
    compiled = _compiled(schema)
    _refuse_doctype(document, "document")
    parser = _parser()
    try:
        tree = _parsed(document, parser, "document")
    except etree.XMLSyntaxError as error:
        # Not error.error_log: that is the log of the process, with the errors of other customers' documents.
        for entry in parser.error_log.filter_from_errors():
            if entry.type == etree.ErrorTypes.ERR_NO_MEMORY or "huge" in entry.message.lower():
                raise over_budget(
                    "document", f"line {entry.line}: {entry.message}", f"nest at most {MAX_DEPTH * 2} elements"
                ) from None
            if not report.add(_finding("xml/syntax", entry)):
                break
        if not report.findings:  # an empty document has no entry in the log
            message = error.msg or "the document is empty"
            report.add(Finding(severity=Severity.ERROR, code="xml/syntax", message=message, line=1, column=1))
        return
    compiled.validate(tree)
    for entry in compiled.error_log:  # type: ignore[attr-defined]  # the stubs miss __iter__
        code = entry.type_name.removeprefix("SCHEMAV_").lower().replace("_", "-")
        if not report.add(_finding(f"xml-schema/{code}", entry)):
            return


def _finding(code: str, entry: "etree._LogEntry") -> Finding:
    return Finding(
        severity=Severity.WARNING if entry.level == etree.ErrorLevels.WARNING else Severity.ERROR,
        code=code,
        # The braces around a namespace are libxml2's; they stay, because two namespaces may share a local name.
        message=entry.message,
        path=entry.path or "",
        line=entry.line or None,
        column=entry.column or None,
    )


def _parser() -> etree.XMLParser:
    return etree.XMLParser(
        encoding="utf-8",  # overrides what the declaration says about the bytes the customer's file had
        resolve_entities=False,
        no_network=True,
        load_dtd=False,
        dtd_validation=False,
        attribute_defaults=False,
        huge_tree=False,
        recover=False,
    )


def _parsed(text: str, parser: etree.XMLParser, field: str) -> "etree._ElementTree":
    try:
        content = text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise Refused(
            "bad-encoding",
            "The text is not Unicode",
            field=field,
            detail=f"character {error.start} is half of a surrogate pair",
            remedy="send the file as it is, as one part of a multipart request",
        ) from None
    root = etree.fromstring(content, parser)
    tree = root.getroottree()
    if tree.docinfo.internalDTD is not None or tree.docinfo.externalDTD is not None:
        raise _doctype(field)
    return tree


def _refuse_doctype(text: str, field: str) -> None:
    prolog = _PROLOG.match(text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}"))
    end = prolog.end() if prolog else 0
    if text.removeprefix("\N{ZERO WIDTH NO-BREAK SPACE}")[end : end + 9].upper() == "<!DOCTYPE":
        raise _doctype(field, text.count("\n", 0, end) + 1)


def _doctype(field: str, line: int | None = None) -> Refused:
    where = f"line {line}: " if line else ""
    return Refused(
        "document-type",
        "Document type declarations are refused",
        field=field,
        detail=f"{where}the file has a <!DOCTYPE …>, which can define entities and refer to other files",
        remedy="remove the declaration and write entities out; a schema says more than a DTD does",
    )


def _compiled(text: str) -> etree.XMLSchema:
    _refuse_doctype(text, "schema")
    try:
        tree = _parsed(text, _parser(), "schema")
    except etree.XMLSyntaxError as error:
        raise _bad_schema(error.msg or "the schema is empty", error.lineno) from None
    for name in ("import", "include", "redefine", "override"):
        for element in tree.iter(f"{_XSD}{name}"):
            location = element.get("schemaLocation")
            if location is not None or name != "import":
                raise Refused(
                    "remote-reference",
                    "The schema refers to something outside itself",
                    field="schema",
                    detail=f"line {element.sourceline}: xs:{name} of {(location or '')[:200]!r}",
                    remedy="put all declarations into one schema; other files and hosts are never read",
                )
    try:
        return etree.XMLSchema(tree)
    except etree.XMLSchemaParseError as error:
        entry = next(iter(error.error_log), None)
        raise _bad_schema(entry.message if entry else str(error), entry.line if entry else None) from None


def _bad_schema(message: str, line: int | None) -> Refused:
    return Refused(
        "bad-schema",
        "The schema is not an XML Schema",
        field="schema",
        detail=f"line {line}: {message}" if line else message,
        remedy="correct the schema at this place",
    )
