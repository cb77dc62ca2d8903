"""The JSON Schema of the file as it is written: durations as text, `off` where it is allowed, short forms."""

from __future__ import annotations

from typing import Any

from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema, to_jsonable_python

from lb.config.model import Config
from lb.config.shapes import OFF


class _AsWritten(GenerateJsonSchema):
    """None is never written: it stands in a model for what is off or left out."""

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        found = super().default_schema(schema)
        default = _without_none(_written_back(schema))
        inherited = schema["schema"]["type"] == "nullable"
        if default is None and not inherited and OFF in found.get("anyOf", ()):
            default = "off"
        found.pop("default", None)
        return found if default in (None, "", []) else found | {"default": default}

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def _written_back(schema: core_schema.WithDefaultSchema) -> Any:
    """The default of a field, as it would be written in the file."""
    default = schema.get("default")
    inner: Any = schema["schema"]
    while "schema" in inner and "serialization" not in inner:
        inner = inner["schema"]
    write = inner.get("serialization", {}).get("function")
    return to_jsonable_python(write(default) if write and default is not None else default)


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def json_schema() -> dict[str, Any]:
    """JSON Schema 2020-12 of a configuration file, for editors and other tools."""
    found = Config.model_json_schema(mode="validation", schema_generator=_AsWritten)
    _name_policies(found["$defs"]["Pool"]["properties"]["balancer"])
    return {"$schema": _AsWritten.schema_dialect} | found


def scenario_schema() -> dict[str, Any]:
    """The same of a scenario of `lb simulate`."""
    from lb.config.scenario import ScenarioSpec

    found = ScenarioSpec.model_json_schema(mode="validation", schema_generator=_AsWritten)
    _name_policies(found["properties"]["policies"]["items"])
    return {"$schema": _AsWritten.schema_dialect} | found


def _name_policies(balancer: dict[str, Any]) -> None:
    from lb.balance import policies  # here, so that importing the models stays quick

    short, long = balancer["anyOf"]
    for policy in (short, long["properties"]["policy"]):
        policy["anyOf"] = [{"enum": list(policies())}, {"pattern": ":"}]
