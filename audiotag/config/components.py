"""The base class of config sections, and sections from component signatures."""

import inspect
import re
from typing import Annotated, Any, ClassVar, Literal, TypeVar, Union

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    create_model,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from audiotag.config import signatures
from audiotag.errors import shortened

CUSTOM_TAG = "package.module:Name"
CUSTOM_NAME = r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*"
SUBSET_PATTERN = "[A-Za-z0-9_-]+"  # the name of a subset of clips
MOST = 1_000_000  # of a whole number among the options of a component; a size above it needs more memory than there is
T = TypeVar("T")


class _OneAsWell:
    """Tells the JSON schema of a list that one entry may stand alone."""

    def __get_pydantic_json_schema__(self, core_schema, handler):
        several = handler(core_schema)
        return {"anyOf": [several["items"], several]}


# A tuple that the file may write as a single string.
OneOrSeveral = Annotated[
    tuple[T, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: (value,) if isinstance(value, str) else value),
    _OneAsWell(),
]


class CheckedTypes(BaseModel):
    """An object of checked types; an array of JSON may be a list or a tuple."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, protected_namespaces=())


class Section(CheckedTypes):
    """An object of a config file, with known keys and checked types.

    Every key is known, every value has its type, and nothing changes later.
    """

    @model_validator(mode="before")
    @classmethod
    def refuse_unknown_keys(cls, values: Any) -> Any:
        """Refuses unknown keys and names the nearest known one."""
        accepted = cls.model_fields
        if cls.model_config["extra"] == "allow":
            return values
        for key in values if isinstance(values, dict) else ():
            if key not in accepted:
                hint = signatures.nearest(key, accepted)
                what = f"unknown key {shortened(repr(key))}. {hint}Accepted: {', '.join(accepted)}."
                raise PydanticCustomError("unknown_key", "{what}", {"what": what})
        return values


class ComponentOptions(Section):
    """The options of a component, whose whole numbers are at most `MOST`."""

    @field_validator("*", mode="after")
    @classmethod
    def refuse_huge_numbers(cls, value: Any) -> Any:
        """Refuses sizes that would end the process for lack of memory."""
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, int) and abs(number) > MOST:
                raise PydanticCustomError("huge_number", "Input should be at most {most}", {"most": MOST})
        return value


class CustomComponent(Section):
    """A component from outside audiotag: {"name": "package.module:Name", …options}.

    Its options may be anything until `custom` imports the component and checks them.
    """

    model_config = ConfigDict(extra="allow")
    base: ClassVar[str] = ""  # the class that it must derive from, such as "keras.layers:Layer"; "" for a function
    given: ClassVar[tuple[str, ...]] = ()  # arguments that the program passes
    name: str = Field(json_schema_extra={"pattern": f"^{CUSTOM_NAME}$"})

    @field_validator("name")
    @classmethod
    def check_name(cls, name: str) -> str:
        """Refuses what is not the name of a module and of something in it."""
        if not re.fullmatch(CUSTOM_NAME, name, re.ASCII):
            what = f'{shortened(repr(name))} is no name of a component. Expected one like "package.module:Name".'
            raise PydanticCustomError("complete_message", "{what}", {"what": what})
        return name


def component(
    module: str, *tables: str, base: str = "", given: tuple[str, ...] = (), optional: tuple[str, ...] = ()
) -> Any:
    """The type of a component: one `Section` for each entry of some dicts.

    The sections are discriminated by `name`. The last is a `CustomComponent`.

    Args:
        module: Dotted name of the module that holds the dicts.
        tables: Names of the dicts in it, such as "MODELS": component names to classes or functions.
        base: The class that custom components must derive from, such as "keras.layers:Layer"; "" for functions.
        given: Arguments that the program passes, so the file may not.
        optional: Text options that may be null, which is their default here: the program then chooses.
    """
    sections = []
    names = [(table, name) for table in tables for name in signatures.component_names(module, table)]
    for table, name in names:
        fields: dict[str, Any] = {
            key: (option_type(parameter), ... if parameter.default is parameter.empty else parameter.default)
            for key, parameter in signatures.signature(module, table, name).parameters.items()
            if key not in given
        }
        fields |= {key: (str | None, None) for key in optional if key in fields}
        name_type: Any = Literal[name]  # made at run time
        about = signatures.docstring(module, table, name)
        section = create_model(name, __base__=ComponentOptions, __doc__=about, name=(name_type, ...), **fields)
        sections.append(Annotated[section, Tag(name)])
    custom = type("Custom", (CustomComponent,), {"base": base, "given": given, "__doc__": CustomComponent.__doc__})
    sections.append(Annotated[custom, Tag(CUSTOM_TAG)])
    return Annotated[Union[tuple(sections)], Discriminator(_tag)]  # noqa: UP007


def _tag(value):
    """The tag of the section that a component belongs to: its name, or that of custom components."""
    if not isinstance(value, (dict, Section)):
        return ""  # `loading` says that it is no object
    name = value.get("name") if isinstance(value, dict) else value.name
    if name is None or isinstance(name, str):
        return CUSTOM_TAG if name and ":" in name else name
    return repr(name)


def options(section: Section) -> dict[str, Any]:
    """The options of a component: its keys without `name`."""
    return section.model_dump(exclude={"name"})


def option_type(parameter: inspect.Parameter) -> Any:
    """The type of an option: its annotation or, as in Keras, that of its default.

    It is a number where the default is a number or None. A whole number for a float becomes a float, as Keras
    requires of a learning rate.
    """
    if parameter.annotation is not parameter.empty:
        return parameter.annotation
    number = int | float
    return {bool: bool, int: number, float: float, type(None): number | None}.get(type(parameter.default), Any)
