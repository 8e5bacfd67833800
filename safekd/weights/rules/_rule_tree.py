"""What stands inside a rule: wrappers hold rules, and rules hold modules."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import FunctionType, MethodType

from torch import Tensor, nn

from ...errors import InvalidInput

_IN_EVERY_MODULE = frozenset(vars(nn.Module()))


def walk_rule(rule: object, enter: Callable[[object], bool]) -> Iterator[tuple[str, object]]:
    """Yield all that a rule holds, itself first, each part once.

    Dataclasses, modules, lists, dictionaries, partials, bound methods and objects that can be called show what they
    hold; a function does not say what it uses.

    Args:
        rule: Where to begin.
        enter: Whether to look inside a part.

    Yields:
        The place of each part and the part: "token.rule", the rule's own being "".
    """
    seen: set[int] = set()
    waiting: list[tuple[str, object]] = [("", rule)]
    while waiting:
        place, part = waiting.pop()
        if id(part) in seen:
            continue
        seen.add(id(part))
        yield place, part
        if enter(part):
            waiting.extend(reversed([(join_names(place, name), inner) for name, inner in _list_held(part)]))


def collect_modules(rule: object) -> dict[str, nn.Module]:
    """Return the outermost modules inside a rule: they hold all that it can save.

    Args:
        rule: A rule, wrapped or not.

    Returns:
        Modules by their place; "" is the rule's own.
    """
    modules: dict[str, nn.Module] = {}
    covered: set[int] = set()
    for place, part in walk_rule(rule, lambda part: True):
        if isinstance(part, nn.Module) and id(part) not in covered:
            modules[place] = part
            covered |= {id(inner) for inner in part.modules()}
    return modules


def rule_state(rule: object) -> dict[str, Tensor]:
    """Return copies of all parameters and buffers inside a rule.

    Args:
        rule: A rule, wrapped or not.

    Returns:
        Tensors by place and name, as ``weighting_rule.safetensors`` holds them.
    """
    return {
        join_names(place, name): value.detach().clone()
        for place, module in collect_modules(rule).items()
        for name, value in module.state_dict().items()
    }


def load_rule_state(rule: object, state: Mapping[str, Tensor]) -> None:
    """Give a rule the parameters and buffers that ``rule_state`` returned.

    Args:
        rule: A rule of the same making.
        state: Tensors by place and name.

    Raises:
        InvalidInput: Names or shapes are those of another rule; nothing is loaded then.
    """
    own = rule_state(rule)
    missing, unknown = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
    misfits = [
        f"'{name}' has shape {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in own.items()
        if name in state and state[name].shape != value.shape
    ]
    wrong = [f"'{name}' is missing" for name in missing] + [f"'{name}' is unknown here" for name in unknown] + misfits
    if wrong:
        raise InvalidInput(f"The state is that of another weighting rule: {'; '.join(wrong[:3])}.")
    for place, module in collect_modules(rule).items():
        module.load_state_dict({name: state[join_names(place, name)] for name in module.state_dict()})


def join_names(place: str, name: str) -> str:
    """Return the place of ``name`` inside ``place``."""
    return f"{place}.{name}".strip(".")


def _list_held(part: object) -> list[tuple[str, object]]:
    if isinstance(part, nn.Module):
        own = {name: value for name, value in vars(part).items() if name not in _IN_EVERY_MODULE}
        return [*part.named_children(), *own.items()]
    if isinstance(part, Mapping):
        return [(str(key), value) for key, value in part.items()]
    if isinstance(part, (list, tuple)):
        return [(str(number), value) for number, value in enumerate(part)]
    if isinstance(part, functools.partial):
        return [("", part.func), *_list_held(part.args), *part.keywords.items()]
    if isinstance(part, MethodType):
        return [("", part.__self__)]
    if isinstance(part, (type, FunctionType)):
        return []
    if is_dataclass(part):
        return [(field.name, getattr(part, field.name, None)) for field in fields(part)]
    return list(vars(part).items()) if callable(part) and hasattr(part, "__dict__") else []
