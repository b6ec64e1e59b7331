"""A client that does as a test says, for commands that would talk to an exchange."""

from __future__ import annotations

from collections.abc import Callable, Iterator


class FakeClient:
    """Answers from a script, and writes down what it was asked."""

    def __init__(self, **answers: object) -> None:
        self._answers = answers
        self.asked: list[tuple[str, tuple[object, ...], dict[str, object]]] = []

    def __getattr__(self, name: str) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.asked.append((name, args, kwargs))
            answer = self._answers[name]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


class Stream(Iterator[object]):
    """A stream that ends, as the SDK's do when the client is closed, or with an error."""

    def __init__(self, *items: object) -> None:
        self._items = iter(items)

    def __next__(self) -> object:
        item = next(self._items)
        if isinstance(item, Exception):
            raise item
        return item

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing to close."""
