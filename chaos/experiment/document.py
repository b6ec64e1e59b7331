"""YAML as an experiment is written in: plain values, no key twice, nothing that refers to another place."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

BYTES_MAX = 256 << 10
Path = tuple[str | int, ...]
"""Where a value stands: the keys and positions that lead to it."""


class DocumentInvalid(ValueError):
    """The text is no such document; the message says where, what was expected and what was found."""


@dataclass(frozen=True, slots=True)
class Document:
    """The values, and the line that each of them stands on."""

    values: Any
    _root: Node

    def line_of(self, path: Path) -> int:
        """Return the line of a value, or of the nearest above it that is there."""
        node = self._root
        for step in path:
            below = _below(node, step)
            if below is None:
                break
            node = below
        return int(node.start_mark.line) + 1


def parse(text: str) -> Document:
    """Read a document. Raises `DocumentInvalid`."""
    if (size := len(text.encode())) > BYTES_MAX:
        raise DocumentInvalid(f"expected at most {BYTES_MAX:,} bytes, found {size:,}")
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            raise DocumentInvalid("expected an experiment, found an empty document")
        return Document(loader.construct_document(root), root)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise DocumentInvalid(f"{line}{error.problem}") from error
    except yaml.YAMLError as error:
        raise DocumentInvalid(f"expected YAML, found what is none: {error}") from error
    finally:
        loader.dispose()


def lay_over(values: Any, changes: Mapping[str, Any]) -> None:
    """Put values at their paths ("phases[1].duration_s"). Raises `DocumentInvalid` where a path leads nowhere."""
    for written, value in changes.items():
        try:
            *above, last = parse_path(written)
            at = values
            for step in above:
                at = at.setdefault(step, {}) if isinstance(at, dict) else at[step]
            at[last] = value
        except (ValueError, TypeError, IndexError, AttributeError) as error:
            expected = "expected the path of a value, such as environment.shards or phases[1].duration_s"
            raise DocumentInvalid(f"{expected}, was {written!r}") from error


def format_path(path: Path) -> str:
    """Return a path as a person writes it: `phases[1].faults[0].target`."""
    written = ""
    for step in path:
        written += f"[{step}]" if isinstance(step, int) else f".{step}"
    return written.removeprefix(".")


def parse_path(written: str) -> Path:
    """Return the path that `$.phases[0].load[...]` names, as far as it names one: msgspec says no keys of mappings."""
    path: list[str | int] = []
    for part in written.removeprefix("$").replace("[", ".[").split("."):
        if part == "[...]":
            break
        if part.startswith("["):
            path.append(int(part[1:-1]))
        elif part:
            path.append(part)
    return tuple(path)


class _Loader(yaml.SafeLoader):
    """Refuses aliases, by which a small file can say a large one, and a key that is there twice."""

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        if self.check_event(yaml.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            problem = f"expected a value, found the alias *{event.anchor}: write the value out"
            raise yaml.composer.ComposerError(None, None, problem, event.start_mark)
        node: Node | None = super().compose_node(parent, index)
        return node

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                problem = f"expected a name as key, found {key.value!r}"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            if key.value in seen:
                problem = f"expected each key once, found {key.value!r} again"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value)
        mapping: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return mapping


# A date stays the text that it is written as: the form of each value is the schema's to say.
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _below(node: Node, step: str | int) -> Node | None:
    if isinstance(node, MappingNode):
        return next((value for key, value in node.value if key.value == step), None)
    if isinstance(node, SequenceNode) and isinstance(step, int) and step < len(node.value):
        below: Node = node.value[step]
        return below
    return None
