"""The shapes of fields: with a language of its own; that may be off, left out, or written in short.

A model names them in an annotation, beside the kind of the value (lb/config/fields.py) or behind a section:
`Annotated[Retries | None, OrOff()]`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from lb.config.written import is_nothing, is_off, shown, suggestion

JsonSchema = dict[str, Any]

OFF: JsonSchema = {"enum": ["off", False]}
"""How `off` reaches a validator: YAML 1.2 has it as text, YAML 1.1 as false."""


@dataclass(frozen=True, slots=True, eq=False)
class Written:
    """A field with a language of its own: its reader, its JSON Schema, and how it is written back."""

    read: Callable[[Any], Any]
    json_schema: JsonSchema
    write: Callable[[Any], Any] | None = None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        written_back = None
        if self.write is not None:
            written_back = core_schema.plain_serializer_function_ser_schema(
                self.write, when_used="json-unless-none"
            )
        return core_schema.no_info_plain_validator_function(self.read, serialization=written_back)

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return dict(self.json_schema)


_NEARLY_OFF = ("no", "none", "never", "disabled", "disable")


@dataclass(frozen=True, slots=True)
class OrOff:
    """A field that `off` turns off: the model then holds `value`."""

    what: str = "a mapping"
    value: object = None

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        def read(value: object, inner: core_schema.ValidatorFunctionWrapHandler) -> object:
            if value is None or is_off(value) or value == self.value:
                return self.value
            if is_nothing(value) or (isinstance(value, str) and value.lower() in _NEARLY_OFF):
                raise ValueError(f"must be {self.what} or off, not {shown(value)}{suggestion('off')}")
            if isinstance(value, str) and self.what == "a mapping":
                raise ValueError(f"must be a mapping or off, not {shown(value)}")
            return inner(value)

        return core_schema.no_info_wrap_validator_function(read, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        return {"anyOf": [handler(schema), OFF]}


@dataclass(frozen=True, slots=True)
class Inherited:
    """A field that stands in place of another one, of the pool say: None where it is left out."""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.nullable_schema(handler(source))


@dataclass(frozen=True, slots=True, eq=False)
class OrShort:
    """A mapping that may be written as just the value of its main key.

    With `rest`, the keys that the model doesn't name are gathered into that one.
    """

    main: str
    json_schema: JsonSchema
    rest: str = ""

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_before_validator_function(self._spread, handler(source))

    def _spread(self, value: object) -> object:
        if isinstance(value, str) and not is_nothing(value):
            return {self.main: value}
        if self.rest and isinstance(value, Mapping):
            others = {key: item for key, item in value.items() if key != self.main}
            named = {self.main: value[self.main]} if self.main in value else {}
            return named | {self.rest: others}
        return value

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchema:
        long_form = handler(schema)
        if self.rest:
            long_form = dict(handler.resolve_ref_schema(long_form)) | {"additionalProperties": True}
            properties = long_form["properties"]
            long_form["properties"] = {key: properties[key] for key in properties if key != self.rest}
        return {"anyOf": [self.json_schema, long_form]}
