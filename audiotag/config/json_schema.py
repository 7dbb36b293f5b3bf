"""The JSON schema of experiment files, for completion and checks in editors.

It is made from the sections of `schema`. What several sections say together, such as the name of an earlier stage,
only `loading.load` checks.
"""

from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from audiotag.config.components import Section
from audiotag.config.schema import Experiment


def json_schema(kind: type[Section] = Experiment) -> dict[str, Any]:
    """The JSON schema of a file that holds a `Section`, draft 2020-12.

    An object is described by the first line of its docstring.

    Example:
        >>> json_schema()["properties"]["seed"]["minimum"]
        0
    """
    schema = {"$schema": GenerateJsonSchema.schema_dialect} | kind.model_json_schema(schema_generator=_WithoutTitles)
    for described in [schema, *schema.get("$defs", {}).values()]:
        described.pop("title", None)
        described["description"] = described.get("description", "").partition("\n")[0]
    return schema


class _WithoutTitles(GenerateJsonSchema):
    """Pydantic's generator without a title for each key, which says the same as the key."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Never."""
        return False
