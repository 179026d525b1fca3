"""Reading JSON in which each thing stands under its name. Pure."""


class SaidTwice(ValueError):
    """Of a server that guides nobody: JSON takes the last of two for what is meant, a model said both."""


def refuse_twice(entries: list[tuple[str, object]]) -> dict[str, object]:
    """For `json.loads(…, object_pairs_hook=refuse_twice)`. Raises SaidTwice, which names what stands there twice."""
    found = dict(entries)
    if len(found) < len(entries):
        names = [name for name, _ in entries]
        raise SaidTwice(next(name for name in found if names.count(name) > 1))
    return found
