"""Config sections, and components checked against the signature of what they name."""

from typing import Annotated, Any, Literal, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from audiotag.config import signatures


class Section(BaseModel):
    """An object of the file: every key is known, every value has its type, nothing changes later."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def no_key_is_ignored(cls, values):
        """Refuses unknown keys with the nearest known one."""
        accepted = cls.model_fields
        for key in values if isinstance(values, dict) else ():
            if key not in accepted:
                hint = signatures.nearest(key, accepted)
                raise PydanticCustomError(
                    "unknown_key", "{what}", {"what": f"unknown key {key!r}. {hint}Accepted: {', '.join(accepted)}."}
                )
        return values


def part(module, *tables, given=()):
    """The type of a named part: one Section for each entry of tables of parts, told apart by `name`.

    Args:
        module: Dotted name of the module that holds the tables.
        tables: Names of the tables in it.
        given: Arguments that the program provides, so that the file may not.
    """
    sections = []
    for table, name in ((table, name) for table in tables for name in signatures.parts(module, table)):
        fields = {
            key: (_kind(parameter), ... if parameter.default is parameter.empty else parameter.default)
            for key, parameter in signatures.signature(module, table, name).parameters.items()
            if key not in given
        }
        sections.append(create_model(name, __base__=Section, name=(Literal[name], ...), **fields))
    if len(sections) == 1:
        return sections[0]
    return Annotated[Union[tuple(sections)], Field(discriminator="name")]


def _kind(parameter):
    """The type of an option: as annotated, or else, as Keras leaves it, a number where the default is one or None."""
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    number = int | float
    return {bool: bool, int: number, float: number, type(None): number | None}.get(type(parameter.default), Any)


def _one_or_several(kind):
    """The type of a tuple that the file may write as a single text."""
    return Annotated[
        tuple[kind, ...],
        Field(min_length=1),
        BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    ]


def options(section):
    """What a named part was told: its keys without `name`."""
    return section.model_dump(exclude={"name"})
