"""Starts nodes of this machine again that ended by themselves, as the init system of a machine of their own would."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Self

import structlog

from exchange.nodes import LocalNode, LocalNodes, NodesFailed

_POLL_S = 0.2
_log = structlog.get_logger()


class NodeReviver:
    """Does so until closed; as a context manager, within it.

    Ray gives a node up that it does not hear for some seconds, and ends it when it hears of it again: after a pause or
    a partition that was longer than that, the raylet ends, and all that it had started.
    """

    def __init__(self, nodes: LocalNodes) -> None:
        self._nodes = nodes
        self.stay_down: set[str] = set()
        """The names of nodes that are not to be started."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop doing so, and wait for a start that is under way. Doing it twice is allowed."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_POLL_S):
            for node in self._nodes.nodes:
                if node.name not in self.stay_down and not node.alive and self._can_join(node):
                    self._revive(node)

    def _can_join(self, node: LocalNode) -> bool:
        """Whether it would reach the GCS, which is where the first node is."""
        return self._nodes.gcs_pid != 0 and not node.is_cut and not self._nodes.nodes[0].is_cut

    def _revive(self, node: LocalNode) -> None:
        _log.info("node.revived", node=node.name)
        try:
            # What of it has not ended yet.
            self._nodes.kill(node)
            self._nodes.start_again(node)
        except NodesFailed as error:
            # The GCS was lost meanwhile, say: the next round tries again.
            _log.warning("node.not_started", node=node.name, error=str(error))
