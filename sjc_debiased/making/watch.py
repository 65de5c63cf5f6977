"""The contract of what looks at runs while they go on: the viewer, the TensorBoard mirror, the app."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from sjc_debiased.making.session import Session
    from sjc_debiased.optimize import Step

Wish = Literal["go on", "wait", "stop"]


class Watcher(Protocol):
    """Look at runs between their steps, on the thread of the loop."""

    def between_steps(self, session: Session, step: Step) -> Wish:
        """Look at a run after a step, which is logged by then.

        Its scene may be rendered without gradient, and changed through `by_hand`; nothing else of it, and
        nothing random that is shared, may be touched.

        Args:
            step: the record of the step; its number is `session.scene.done - 1`.

        Returns:
            "go on"; "wait", to be asked again before the next step; or "stop", which saves every run
            after the step that it does next, and ends it, as Ctrl-C does.
        """
        ...
