"""Which students there are, by name, and who brings them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

import torch
from torch import nn

from solvers.short_repr import ShortRepr

from ..._torch_state import evaluation_mode
from ...errors import InvalidConfig, PluginFailure, SafekdError

StudentFunction = Callable[..., nn.Module]
F = TypeVar("F", bound=StudentFunction)

GROUP = "safekd.students"
_STUDENTS: dict[str, StudentFunction] = {}  # built in, or registered in this process


def register_student(name: str) -> Callable[[F], F]:
    """Enter a function into the students that experiment files can name; a decorator.

    Args:
        name: What ``[student] kind`` calls it.

    Returns:
        What returns the function as it is: ``(inputs, classes, **options)`` to a module from (B, inputs) to logits
        (B, classes).

    Raises:
        InvalidConfig: Another function has that name.
    """

    def enter(function: F) -> F:
        known = _STUDENTS.get(name)
        if known is not None and _identify(known) != _identify(function):  # a module may be run again
            raise InvalidConfig(f"There is a student '{name}' already, of {_name_source(known)}; choose another name.")
        _STUDENTS[name] = function
        return function

    return enter


def list_students() -> dict[str, str]:
    """Return who brings each student, by its name: "safekd", a module of this process, or a package."""
    brought = {name: _name_source(function) for name, function in _STUDENTS.items()}
    return {point.name: _name_package(point) for point in _list_entry_points()} | brought


@dataclass(frozen=True, repr=False)
class StudentMaker(ShortRepr):
    """How a student is made.

    Attributes:
        kind: Its name.
        function: What makes it.
        package: Who brings it, as messages say it.
        options: What it is made with besides its sizes.
    """

    kind: str
    function: StudentFunction
    package: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def build(self, inputs: int, classes: int, seed: int, image_shape: tuple[int, int, int] | None = None) -> nn.Module:
        """Return a fresh student, the same one every time for the same seed.

        Args:
            inputs: Number of features.
            classes: Number of classes.
            seed: Of torch's random numbers, from which it draws its parameters; at least 0.
            image_shape: Channels, height and width where the features are pixels.

        Raises:
            InvalidConfig: It does not take the options.
            PluginFailure: Another package's function fails, or returns something else.
        """
        given = {"inputs": inputs, "classes": classes, **self.options}
        takes = self._bind(given)
        if image_shape is not None and "image_shape" in takes:
            given["image_shape"] = image_shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            try:
                student = self.function(**given)
                if not isinstance(student, nn.Module):
                    raise TypeError(f"it returned a {type(student).__name__}; wanted a torch.nn.Module")
                with evaluation_mode(student), torch.no_grad():
                    logits = student(torch.zeros(2, inputs))
            except SafekdError:
                raise
            except Exception as error:
                raise self._explain_failure(error) from error
        shape = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
        if shape != (2, classes):
            raise self._explain_failure(ValueError(f"two rows give {shape}; wanted logits of shape (2, {classes})"))
        return student

    def _bind(self, given: Mapping[str, Any]) -> Mapping[str, inspect.Parameter]:
        """Refuse options that the function does not take; return its parameters."""
        try:
            signature = inspect.signature(self.function)
            signature.bind(**given)
        except TypeError as error:
            takes = [name for name in signature.parameters if name not in ("inputs", "classes", "image_shape")]
            raise InvalidConfig(
                f"student.options do not fit student '{self.kind}' of {self.package}: {error}. It takes: "
                f"{', '.join(takes) or 'none'}."
            ) from error
        except ValueError as error:  # no signature
            raise self._explain_failure(error) from error
        return signature.parameters

    def _explain_failure(self, error: Exception) -> PluginFailure:
        reason = f"{type(error).__name__}: {_show_first_line(error)}"
        return PluginFailure(f"Student '{self.kind}' of {self.package} cannot be built: {reason}.")


def find_student(kind: str, options: Mapping[str, Any] | None = None) -> StudentMaker:
    """Return how a student is made, by its name.

    Args:
        kind: Its name.  Built-in and registered ones come first, then those of packages.
        options: What it is made with besides its sizes.

    Raises:
        InvalidConfig: There is none of that name; the message lists those that there are.
        PluginFailure: The package that brings it cannot be imported, or several bring one of that name.
    """
    if kind in _STUDENTS:
        function = _STUDENTS[kind]
        return StudentMaker(kind, function, _name_source(function), options or {})
    points = [point for point in _list_entry_points() if point.name == kind]
    if not points:
        raise InvalidConfig(
            f"There is no student '{kind}'; known: {', '.join(sorted(list_students()))}. A package brings one by an "
            f"entry point of the group '{GROUP}', a script by kd.experiment.register_student."
        )
    if len(points) > 1:
        packages = " and ".join(_name_package(point) for point in points)
        raise PluginFailure(f"Student '{kind}' is brought by {packages}; uninstall all but one.")
    package = _name_package(points[0])
    try:
        function = points[0].load()
    except Exception as error:
        raise PluginFailure(
            f"Student '{kind}' of {package} cannot be imported ({points[0].value}): {type(error).__name__}: "
            f"{_show_first_line(error)}."
        ) from error
    if not callable(function):
        raise PluginFailure(
            f"Student '{kind}' of {package} is a {type(function).__name__} ({points[0].value}); wanted a function."
        )
    return StudentMaker(kind, function, package, options or {})


def _list_entry_points() -> list[EntryPoint]:
    """Return the entry points of installed packages, each once."""
    found = {(point.name, point.value, _name_package(point)): point for point in entry_points(group=GROUP)}
    return list(found.values())


def _name_package(point: EntryPoint) -> str:
    return "an unknown package" if point.dist is None else f"{point.dist.name} {point.dist.version}"


def _name_source(function: StudentFunction) -> str:
    """Return the package whose module defines a function."""
    return (getattr(function, "__module__", None) or "this process").partition(".")[0]


def _identify(function: StudentFunction) -> object:
    return (getattr(function, "__module__", None), getattr(function, "__qualname__", function))


def _show_first_line(error: Exception) -> str:
    return (str(error).splitlines() or ["no reason given"])[0][:300].rstrip(".")
