"""The base class of config sections, and sections from component signatures."""

from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator
from pydantic_core import PydanticCustomError

from audiotag.config import signatures
from audiotag.errors import shortened

T = TypeVar("T")
# A tuple that the file may write as a single string.
OneOrSeveral = Annotated[
    tuple[T, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
]


class Section(BaseModel):
    """An object of a config file, with known keys and checked types.

    Every key is known, every value has its type, and nothing changes later.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def refuse_unknown_keys(cls, values: Any) -> Any:
        """Refuses unknown keys and names the nearest known one."""
        accepted = cls.model_fields
        for key in values if isinstance(values, dict) else ():
            if key not in accepted:
                hint = signatures.nearest(key, accepted)
                what = f"unknown key {shortened(repr(key))}. {hint}Accepted: {', '.join(accepted)}."
                raise PydanticCustomError("unknown_key", "{what}", {"what": what})
        return values


def component(module: str, *tables: str, given: tuple[str, ...] = ()) -> Any:
    """The type of a component: one `Section` for each entry of some dicts.

    The sections are discriminated by `name`.

    Args:
        module: Dotted name of the module that holds the dicts.
        tables: Names of the dicts in it, such as "MODELS": component names to classes or functions.
        given: Arguments that the program passes, so the file may not.
    """
    sections = []
    names = [(table, name) for table in tables for name in signatures.component_names(module, table)]
    for table, name in names:
        fields: dict[str, Any] = {
            key: (_option_type(parameter), ... if parameter.default is parameter.empty else parameter.default)
            for key, parameter in signatures.signature(module, table, name).parameters.items()
            if key not in given
        }
        name_type: Any = Literal[name]  # made at run time
        sections.append(create_model(name, __base__=Section, name=(name_type, ...), **fields))
    if len(sections) == 1:
        return sections[0]
    return Annotated[Union[tuple(sections)], Field(discriminator="name")]  # noqa: UP007


def options(section: Section) -> dict[str, Any]:
    """The options of a component: its keys without `name`."""
    return section.model_dump(exclude={"name"})


def _option_type(parameter):
    """The type of an option: its annotation, or, since Keras has none, a number where the default is one or None.

    A whole number for a float becomes a float, as Keras requires of a learning rate.
    """
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    number = int | float
    return {bool: bool, int: number, float: float, type(None): number | None}.get(type(parameter.default), Any)
