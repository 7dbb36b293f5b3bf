"""Components from outside audiotag, named "package.module:Name" in an experiment.

A name that is imported is code that runs. So a name is imported only inside `allowed`, which `fit` enters for the
experiment that it is given, and other commands with --allow-unsafe. Classes of Keras are always allowed.
"""

import contextlib
import functools
import importlib
import inspect
import json
import re
import sys
import traceback
import typing
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, create_model
from pydantic.errors import PydanticUserError

from audiotag import files
from audiotag.config.components import CheckedTypes, CustomComponent, Section, option_type, options
from audiotag.config.loading import dump, parse, parse_json, shown_place
from audiotag.config.schema import Experiment
from audiotag.config.signatures import PACKAGE, nearest
from audiotag.errors import ConfigError

# Their classes run no code that an option names. Only `fit` makes callbacks, which may write where an option says.
KERAS_MODULES = (
    "keras.callbacks",
    "keras.losses",
    "keras.metrics",
    "keras.optimizers",
    "keras.optimizers.schedules",
)


class NotAllowed(ConfigError):
    """A component from outside audiotag where none may be imported."""


# Files whose lines do not help the author of a component.
LIBRARIES = re.compile(rf"<frozen|site-packages[/\\](keras|tensorflow)[/\\]|{re.escape(str(PACKAGE))}")
_is_allowed: ContextVar[bool] = ContextVar("is_allowed", default=False)


@contextlib.contextmanager
def allowed(also: bool = True) -> Iterator[None]:
    """During the block components from outside audiotag may be imported, if `also`."""
    token = _is_allowed.set(also or _is_allowed.get())
    try:
        yield
    finally:
        _is_allowed.reset(token)


def import_component(name: str) -> Any:
    """What "package.module:Name" names.

    A module may also lie in the working directory.

    Raises:
        NotAllowed: Nothing may be imported here.
        ConfigError: It cannot be imported, or the module has no such name.
    """
    module_name, _, attribute = name.partition(":")
    if module_name not in KERAS_MODULES and not _is_allowed.get():
        raise NotAllowed(
            f"{name}: is code from outside audiotag, and importing it runs it. If you trust it, add --allow-unsafe "
            "(in Python: allow_unsafe=True)."
        )
    path = sys.path.copy()
    sys.path.append(str(Path.cwd()))  # the last: it hides no installed package
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise ConfigError(f"{name}: cannot be imported: {described(error)}") from error
        raise ConfigError(
            f"{name}: there is no module {error.name!r}. Install its package, or put the file into the working "
            "directory."
        ) from error
    except (Exception, SystemExit) as error:  # whatever the module does
        raise ConfigError(f"{name}: cannot be imported: {described(error)}") from error
    finally:
        sys.path[:] = path
    if not hasattr(module, attribute):
        public = [each for each in vars(module) if not each.startswith("_")]
        raise ConfigError(
            f"{name}: the module {module_name!r} has no {attribute!r}. {nearest(attribute, public)}".rstrip()
        )
    return getattr(module, attribute)


def described(error: BaseException) -> str:
    """An error of a user's component: its type, text, file and line."""
    places = traceback.extract_tb(error.__traceback__)
    own = [place for place in places if not LIBRARIES.search(place.filename)]
    place = (own or places)[-1]
    text = re.sub("\x1b\\[[0-9;]*m", "", str(error))
    return f"{type(error).__name__}: {text} ({place.filename} line {place.lineno})."


def parameters(found: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The named arguments of a function, or of a class's `__init__`."""
    every = inspect.signature(found.__init__ if inspect.isclass(found) else found).parameters
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return {
        key: value for key, value in every.items() if value.kind in named and key != "self" and not key.startswith("_")
    }


def accepts(component: Section, table: Mapping[str, Any], argument: str) -> bool:
    """Whether the class or function of a component has an argument.

    Arguments and errors as for `create`.
    """
    return argument in parameters(bound(component, table).func)


def create(component: Section, table: Mapping[str, Any], **given: Any) -> Any:
    """What a component makes: a layer, a loss, an optimizer.

    Args:
        component: A section of an experiment.
        table: The dict that holds the components of audiotag, such as `MODELS`.
        given: Arguments that the program passes, to components that have them.

    Raises:
        ConfigError: A component from outside audiotag is not valid, or fails.
        ValueError: A component of audiotag refuses an option.
    """
    make = bound(component, table)
    with errors_of(component):
        return make(**{key: value for key, value in given.items() if key in parameters(make.func)})


def bound(component: Section, table: Mapping[str, Any]) -> functools.partial:
    """The class or function of a component, with its options bound.

    Arguments and errors as for `create`.
    """
    if not isinstance(component, CustomComponent):
        return functools.partial(table[component.name], **options(component))  # type: ignore[attr-defined]
    return functools.partial(
        _imported(component), **_checked(component).model_dump(exclude={"name"}, exclude_unset=True)
    )


@contextlib.contextmanager
def errors_of(component: Section) -> Iterator[None]:
    """Turns any error of a component from outside audiotag into a `ConfigError`."""
    try:
        yield
    except (Exception, SystemExit) as error:
        if not isinstance(component, CustomComponent) or isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{component.name}: {described(error)}") from error


def with_checked_options(experiment: Experiment) -> Experiment:
    """The experiment with the options of its custom components checked.

    Their defaults are filled in.

    Raises:
        ConfigError: A component cannot be imported, is of the wrong kind, or does not accept an option.
    """
    components = list(custom_components(experiment))
    if not components:
        return experiment
    content = json.loads(dump(experiment))
    for place, component in components:
        inner: Any = content
        for key in place:
            inner = inner[key]
        try:
            _checked(component)
        except ConfigError as error:
            raise ConfigError(f"{shown_place(place)}: {error}") from error
        inner |= _defaults(component) | inner
    return parse(content, Experiment, "the experiment")


def custom_components(experiment: Experiment) -> Iterator[tuple[tuple[Any, ...], CustomComponent]]:
    """Yields (place, component) of every custom component.

    A place is a tuple of keys and indices.
    """

    def walk(value, place):
        if isinstance(value, CustomComponent):
            yield place, value
        elif isinstance(value, Section):
            for key in type(value).model_fields:
                yield from walk(getattr(value, key), (*place, key))
        elif isinstance(value, tuple):
            for index, inner in enumerate(value):
                yield from walk(inner, (*place, index))

    yield from walk(experiment, ())


def source_hashes(experiment: Experiment) -> dict[str, str]:
    """The source files of the components from outside audiotag and Keras.

    Returns:
        {name: SHA-256 of the file}.

    Raises:
        ConfigError: A component is not allowed here, or cannot be imported.
    """
    names = {component.name for _, component in custom_components(experiment)}
    outside = sorted(name for name in names if name.partition(":")[0] not in KERAS_MODULES)
    return {name: files.sha256(_source_file(name)) for name in outside}


def _source_file(name):
    """The file of a component, or, for an object that has none, that of its module."""
    found = import_component(name)
    try:
        return inspect.getfile(found)
    except TypeError:
        return sys.modules[name.partition(":")[0]].__file__


def _imported(component):
    """The class or function of a component, if it is one of its list's kind."""
    found = import_component(component.name)
    if component.base:
        base = getattr(importlib.import_module(component.base.partition(":")[0]), component.base.partition(":")[2])
        if not (inspect.isclass(found) and issubclass(found, base)):
            raise ConfigError(
                f"{component.name}: is {_kind(found)}. Expected a class that derives from "
                f"{component.base.replace(':', '.')}."
            )
        return found
    try:
        missing = [key for key in component.given if key not in inspect.signature(found).parameters]
    except (TypeError, ValueError):  # not callable, or a function in C
        missing = list(component.given)
    if inspect.isclass(found) or missing:
        raise ConfigError(
            f"{component.name}: is {_kind(found)}. Expected a function with the arguments {', '.join(component.given)}."
        )
    return found


def _kind(found):
    """How a message calls an object."""
    if inspect.isclass(found):
        return f"the class {found.__name__}"
    return f"the function {found.__name__}" if inspect.isfunction(found) else f"a {type(found).__name__}"


def _checked(component):
    """The options of a component as a section made of its signature; unset are those that the file leaves out."""
    found = _imported(component)
    hints, fields = _type_hints(found), {}
    for key, parameter in parameters(found).items():
        if key in (*component.given, "name"):
            continue
        if hasattr(Section, key):
            raise ConfigError(f"{component.name}: an option cannot be called {key!r}. Rename it.")
        kind, default = hints.get(key, _type_of_default(parameter)), parameter.default
        fields[key] = (kind if default is not None else kind | None, ... if default is parameter.empty else default)
    name, text = component.name, component.model_dump_json()
    keys = {key: (Any, default) for key, (_, default) in fields.items()}
    parse_json(text, create_model(name, __base__=Section, name=(str, ...), **keys), name)  # names the nearest known key
    return parse_json(text, create_model(name, __base__=CheckedTypes, name=(str, ...), **fields), name)


def _type_of_default(parameter):
    """The type of an option without annotation: anything if its default is None."""
    return Any if parameter.default is None else option_type(parameter.replace(annotation=parameter.empty))


def _type_hints(found):
    """The annotations of the arguments that are types of JSON values."""
    try:
        hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
    except Exception:  # names that exist for type checkers only, or text that is no type
        return {}
    accepted = {}
    for key, hint in hints.items():
        with contextlib.suppress(PydanticUserError):  # no type of a JSON value
            TypeAdapter(hint)
            accepted[key] = hint
    return accepted


def _defaults(component):
    """The defaults of a component's options, as far as they are JSON values."""
    defaults = {}
    for key, parameter in parameters(_imported(component)).items():
        if key not in (*component.given, "name"):
            with contextlib.suppress(TypeError, ValueError):
                defaults[key] = json.loads(json.dumps(parameter.default, allow_nan=False))
    return defaults
