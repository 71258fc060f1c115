"""Schemas and models side by side: names, required fields, types, ranges, nulls, defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import inspect

from kallichore.config import Deadlines
from tests.contract.document import JSON, Document, operations, resolve

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["check_models"]

OF_THE_CHANNEL = {
    "Attribution",
    "ExecutionRequested",
    "KernelEvent",
    "Resumed",
    "StatusChange",
    "StreamName",
}
"""Models of WebSocket frames, which OpenAPI cannot describe."""

INLINE = {"ExecuteOutputType", "ExecuteStatus"}
"""Models whose schemas stand where they are used, so as to add no names to generated clients."""

NAMELESS = {"NewSessionReply": ("/sessions", "put", "responses", "200", "content", JSON, "schema")}
"""The same, for whole bodies: where the schema stands."""

DEFAULTS_OF_THE_SERVER = {("NewSession", "connection_timeout"): Deadlines().connection_seconds}
"""Optional fields for which the server's own setting stands in."""

Shape = dict[str, Any]


def check_models(document: Document, models: Mapping[str, object]) -> Iterator[str]:
    """Where a schema and the model of its name differ, or one of them is missing."""
    schemas = document["components"]["schemas"]
    requests = _requests(document)
    for name, schema in schemas.items():
        if name not in models:
            yield f"{name}: the document has it, but kallichore.models does not"
        else:
            yield from _check_one(document, name, schema, models[name], as_request=name in requests)
    for name, path in NAMELESS.items():
        schema = document["paths"]
        for step in path:
            schema = schema[step]
        yield from _check_one(document, name, schema, models[name], as_request=False)
    known = {*schemas, *NAMELESS, *INLINE, *OF_THE_CHANNEL}
    for name in sorted(set(models) - known):
        yield f"{name}: kallichore.models has it, but the document does not"


def _requests(document: Document) -> set[str]:
    """The names of the schemas that clients send, in which null stands for nothing."""
    bodies = [o.node["requestBody"] for o in operations(document) if "requestBody" in o.node]
    schemas = [resolve(document, body)["content"][JSON]["schema"] for body in bodies]
    return {schema["$ref"].rpartition("/")[2] for schema in schemas if "$ref" in schema}


def _check_one(
    document: Document, name: str, schema: Document, model: object, *, as_request: bool
) -> Iterator[str]:
    kind = inspect.type_info(model)
    theirs, ours = _whole_schema(document, schema), _whole_model(document, kind)
    yield from _differences(name, theirs, ours)
    if isinstance(kind, inspect.StructType):
        members = schema.get("properties", {})
        for field in kind.fields:
            member = members.get(field.encode_name, {})
            may_be_null = as_request and not field.required
            yield from _check_null(f"{name}.{field.encode_name}", member, may_be_null=may_be_null)
            yield from _check_default(name, field, member)


def _check_null(place: str, member: Document, *, may_be_null: bool) -> Iterator[str]:
    """Null is allowed exactly where a client may leave a field out."""
    if member.get("nullable", False) and not may_be_null:
        yield f"{place}: may be null in the document, which no model allows here"
    if may_be_null and not member.get("nullable", False):
        yield f"{place}: may be null in requests, but the document does not say nullable"


def _check_default(name: str, field: inspect.Field, member: Document) -> Iterator[str]:
    default = field.default
    if default in {None, msgspec.UNSET, msgspec.NODEFAULT}:
        default = DEFAULTS_OF_THE_SERVER.get((name, field.encode_name))
    if member.get("default") != default:
        said = member.get("default")
        yield (
            f"{name}.{field.encode_name}: default is {said} in the document and {default} in ours"
        )


CARRIED = ("enum", "exclusiveMinimum", "maxLength", "maximum", "minLength", "minimum", "pattern")


def _schema(document: Document, schema: Document) -> Shape:
    """A schema's shape, where others are named and not looked into."""
    if "$ref" in schema:
        name, found = schema["$ref"].rpartition("/")[2], resolve(document, schema)
        named = found["type"] == "object" or "enum" in found
        return {"schema": name} if named else _schema(document, found)
    return _whole_schema(document, schema)


def _whole_schema(document: Document, schema: Document) -> Shape:
    shape: Shape = {"type": schema["type"]}
    shape |= {key: schema[key] for key in CARRIED if key in schema}
    if schema["type"] == "string" and "format" in schema:
        shape["format"] = schema["format"]
    if "items" in schema:
        shape["items"] = _schema(document, schema["items"])
    if "properties" in schema:
        shape["required"] = set(schema.get("required", []))
        members = schema["properties"].items()
        shape["properties"] = {name: _schema(document, member) for name, member in members}
    elif schema["type"] == "object":
        values = schema.get("additionalProperties", True)
        shape["values"] = values if values is True else _schema(document, values)
    return shape


def _model(document: Document, kind: inspect.Type) -> Shape:
    """The shape of a field's type, where other models are named and not looked into."""
    if isinstance(kind, inspect.UnionType):
        kind = next(t for t in kind.types if not isinstance(t, inspect.NoneType))
    named = isinstance(kind, inspect.StructType | inspect.EnumType)
    if named and kind.cls.__name__ not in INLINE:  # type: ignore[attr-defined]
        return {"schema": kind.cls.__name__}  # type: ignore[attr-defined]
    return _whole_model(document, kind)


def _whole_model(document: Document, kind: inspect.Type) -> Shape:
    shape: Shape
    match kind:
        case inspect.StructType(fields=fields):
            shape = {
                "type": "object",
                "required": {f.encode_name for f in fields if f.required},
                "properties": {f.encode_name: _model(document, f.type) for f in fields},
            }
        case inspect.EnumType(cls=cls):
            shape = {"type": "string", "enum": [member.value for member in cls]}
        case inspect.ListType(item_type=item):
            shape = {"type": "array", "items": _model(document, item)}
        case inspect.DictType(value_type=value):
            shape = {"type": "object", "values": _model(document, value)}
        case inspect.RawType():
            shape = {"type": "object", "values": True}
        case _:
            shape = _scalar(kind)
    return {key: value for key, value in shape.items() if value is not None}


def _scalar(kind: inspect.Type) -> Shape:
    shape: Shape = {"type": f"{type(kind).__name__}, which no schema can say"}
    match kind:
        case inspect.BoolType():
            shape = {"type": "boolean"}
        case inspect.StrType(min_length=low, max_length=high, pattern=pattern):
            shape = {"type": "string", "minLength": low, "maxLength": high, "pattern": pattern}
        case inspect.DateTimeType(tz=True):
            shape = {"type": "string", "format": "date-time"}
        case inspect.UUIDType():
            shape = {"type": "string", "format": "uuid"}
        case inspect.IntType(ge=low, le=high):
            shape = {"type": "integer", "minimum": low, "maximum": high}
        case inspect.FloatType(gt=low, le=high):
            over = None if low is None else True
            shape = {"type": "number", "minimum": low, "exclusiveMinimum": over, "maximum": high}
        case _:
            pass
    return shape


def _differences(place: str, theirs: Shape, ours: Shape) -> Iterator[str]:
    """One line for each thing that the document and the model say differently."""
    for key in sorted({*theirs, *ours} - {"properties", "required"}):
        one, other = theirs.get(key), ours.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            yield from _differences(f"{place}[]", one, other)
        elif one != other:
            yield f"{place}: {key} is {one} in the document and {other} in the model"
    members, fields = theirs.get("properties", {}), ours.get("properties", {})
    for name in sorted({*members, *fields}):
        if name not in fields:
            yield f"{place}.{name}: is in the document and not in the model"
        elif name not in members:
            yield f"{place}.{name}: is in the model and not in the document"
        else:
            yield from _differences(f"{place}.{name}", members[name], fields[name])
    required, needed = theirs.get("required", set()), ours.get("required", set())
    for name in sorted(required ^ needed):
        who = "document" if name in required else "model"
        yield f"{place}.{name}: is required in the {who} only"
