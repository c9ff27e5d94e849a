"""Which of a model's classes the classes of the data are, where it has others or more."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from robustbench_cli.core.errors import UserError, hint

ClassMap: TypeAlias = Mapping[str, Any] | Sequence[Any]
"""For each class of the data, by name or in order, a class of the model or a list of them, each by
its number or its name."""
_OPTION = "--classes"


def read_class_map(text: str) -> ClassMap:
    """Return the map in a JSON file, or the one that is written out: ``3,5`` or ``cat,dog``.

    Raises:
        UserError: the file is absent, damaged, or holds anything else.
    """
    if not text.endswith(".json"):
        return [each.strip() for each in text.split(",")]
    try:
        found = json.loads(Path(text).expanduser().read_text())
    except OSError as error:
        raise UserError(f"{_OPTION} {text}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{_OPTION} {text} is not valid JSON: {error}") from None
    values = [*found.values()] if isinstance(found, dict) else found
    if not isinstance(values, list) or not values or not all(map(_is_class, values)):
        raise UserError(
            f'{_OPTION} {text}: expected an object such as {{"cat": 281, "dog": [151, 152]}}, or '
            "a list, with a number or a name of the model's classes for each class of the data"
        )
    result: ClassMap = found
    return result


def matched_classes(
    given: ClassMap | None,
    names: Sequence[str],
    count: int,
    classes: Sequence[str],
    rejects: int = 0,
) -> tuple[tuple[int, ...], ...]:
    """Return for each class of the data the positions of the model's logits that stand for it.

    Args:
        given: the map; None: the names of the data's classes are looked for among the model's,
            where it has more classes than the data, or as many in another order.
        names: the names of the model's classes; none: not known.
        count: the number of the model's logits.
        classes: the names of the data's classes.
        rejects: the number of logits that stand for a rejection.

    Returns:
        Nothing where the logits are taken as they are.

    Raises:
        UserError: the map leaves a class of the data out, or names one that is not there.
    """
    names = names if len(names) == count else ()
    if given is None:
        plain = tuple((i,) for i in range(count))
        # As many classes in another order are the data's, too; a rejection has no name there.
        more = count > len(classes) + rejects or (count == len(classes) and not rejects)
        found = _by_name(names, classes) if more else ()
        return () if found == plain else found
    if isinstance(given, Mapping):
        keyed = {_plain(str(key)): value for key, value in given.items()}
        by_number = {str(i) for i in range(len(classes))}
        if {*keyed} == by_number:
            values = [keyed[str(i)] for i in range(len(classes))]
        else:
            left = [each for each in classes if _plain(each) not in keyed]
            wanted = {_plain(each) for each in classes}
            odd = [str(key) for key in given if _plain(str(key)) not in wanted]
            if odd:
                # A class that has an entry was not meant by another key.
                near = hint(_plain(odd[0]), map(_plain, left)) if left else ""
                near = near or f"; its classes: {_some(classes)}"
                raise UserError(f"{_OPTION}: the data has no class {odd[0]!r}{near}")
            if left:
                listed = f"the data's classes: {_some(classes)}"
                raise UserError(f"{_OPTION}: no class for {left[0]!r}; {listed}")
            values = [keyed[_plain(each)] for each in classes]
    else:
        values = list(given)
        if len(values) != len(classes):
            raise UserError(
                f"{_OPTION} has {len(values)} entries, the data has {len(classes)} classes: "
                f"{_some(classes)} (for images of some of them there is --only-classes)"
            )
    groups = tuple(
        tuple(_position(each, names, count) for each in (v if isinstance(v, list) else [v]))
        for v in values
    )
    used = [each for group in groups for each in group]
    twice = [each for each in used if used.count(each) > 1]
    if twice:
        raise UserError(f"{_OPTION}: class {twice[0]} of the model is used twice")
    return groups


def _by_name(names: Sequence[str], classes: Sequence[str]) -> tuple[tuple[int, ...], ...]:
    """Return the positions of the data's classes among the model's names; nothing if one lacks."""
    places: dict[str, set[int]] = {}
    for position, name in enumerate(names):
        for each in {_plain(name), *map(_plain, name.split(","))}:
            places.setdefault(each, set()).add(position)
    found = [places.get(_plain(each), set()) for each in classes]
    numbered = all(each.isdecimal() for each in classes)
    if numbered or any(len(each) != 1 for each in found) or len(set.union(*found)) < len(found):
        return ()
    return tuple(tuple(each) for each in found)


def _position(value: Any, names: Sequence[str], count: int) -> int:
    text = str(value).strip()
    if text.isdecimal():
        if int(text) >= count:
            raise UserError(f"{_OPTION}: the model has classes 0 to {count - 1}, got {text}")
        return int(text)
    found = _by_name(names, [text])
    if not found:
        known = hint(text, names) if names else "; its classes have no names here: give numbers"
        raise UserError(f"{_OPTION}: the model has no class {text!r}{known}")
    return found[0][0]


def _is_class(value: object) -> bool:
    values = value if isinstance(value, list) else [value]
    return bool(values) and all(
        isinstance(each, int | str) and not isinstance(each, bool) for each in values
    )


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _some(classes: Sequence[str]) -> str:
    more = f" and {len(classes) - 10} more" if len(classes) > 10 else ""
    return ", ".join(classes[:10]) + more
