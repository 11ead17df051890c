"""Trees that a head grows token by token: true rows first, and each level then goes on with its parents' outputs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from paceline.drafters._draft_model import Growth, Shape
from paceline.drafters._heads.followed import Followed
from paceline.engine.request import DraftLimits, Request
from paceline.engine.tree import DraftTree

if TYPE_CHECKING:
    from paceline.heads.running import ChainedInTarget, HeadRows


SPARE = 63  # rows behind what is committed that a draft may take


class Asked(NamedTuple):
    """A request for which a tree is wanted; its pages have room for the tree's rows."""

    request: Request
    followed: Followed
    limits: DraftLimits


class Chains:
    """Grows trees for several requests; all share each forward of the head.

    `ids` (num_logits,) are the target's tokens of the head's own; None where they are the same.
    """

    def __init__(self, runner: ChainedInTarget, ids: NDArray[np.int64] | None, vocab_size: int, shape: Shape) -> None:
        self.runner, self.ids, self._vocab_size, self._shape = runner, ids, vocab_size, shape

    def grow(self, asked: Sequence[Asked], source: str) -> list[DraftTree]:
        """One tree each, of no more requests than a forward has rows."""
        growing = [Growth(one.request, one.followed, one.limits, self._shape, source) for one in asked]
        for one, logits in zip(growing, self.read(asked), strict=True):
            one.branch(-1, 1.0, self._target_logits(logits[0]))
        min_gain = sum(one.limits.min_gain for one in growing)
        going = [one for one in growing if one.promise > 0.0]
        while sum(one.promise for one in going) > min_gain:
            self._descend(going)
            going = [one for one in going if one.promise > 0.0]
        return [one.builder.build() for one in growing]

    def read(self, asked: Sequence[Asked], num_masks: int = 0, mask: int = 0) -> list[NDArray[np.float32]]:
        """Logits (1 + num_masks, num_logits) behind each request's last committed row, and behind masks that follow it.

        Rows that were not read yet are read before it.
        """
        room = self.runner.max_rows // len(asked) - num_masks
        for request, followed, _ in asked:
            while followed.sequence.length - followed.num_read > room:
                end = min(followed.num_read + self.runner.max_rows, followed.sequence.length - 1)
                self.runner.run([self._true_rows(request, followed, end)])
                followed.num_read = end
        rows = [self._true_rows(one.request, one.followed, one.followed.sequence.length) for one in asked]
        logits, states = self.runner.run([self._masked(item, num_masks, mask) for item in rows])
        said, end = [], -1
        for item, one in zip(rows, asked, strict=True):
            end += len(item.tokens)
            one.followed.root = states[end]
            one.followed.note_read()
            said.append(logits[end : end + 1 + num_masks])
            end += num_masks
        return said

    def _true_rows(self, request: Request, followed: Followed, end: int) -> HeadRows:
        """The rows up to `end` that were not read yet: the target's states, each with the token behind it."""
        from paceline.heads.running import HeadRows
        from paceline.native.frame import FrameSequence

        sequence, start = followed.sequence, followed.num_read
        states = self.runner.states_of(sequence, start, end - start)
        slots = sequence.slots_from(start, end - start)
        where = FrameSequence(sequence.pages, end, range(start, end), slots)
        spare = sequence.slots_from(end, SPARE) if end == sequence.length else ()
        return HeadRows(where, request.tokens[start + 1 : end + 1], [states], spare)

    def _masked(self, rows: HeadRows, count: int, mask: int) -> HeadRows:
        """The same, and a chain of masks behind them."""
        if not count:
            return rows
        where, start = rows.where, rows.where.positions[0]
        end = where.committed + count
        slots = [*where.slots, *rows.spare[:count]]
        behind = where._replace(committed=end, positions=range(start, end), slots=slots)
        states = [*rows.states, self.runner.mask_states(count)]
        return rows._replace(where=behind, tokens=[*rows.tokens, *[mask] * count], states=states)

    def _target_logits(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """(V,) over the target's tokens: those that the head does not know never come."""
        if self.ids is None:
            return logits[: self._vocab_size]
        spread = np.full(self._vocab_size, -np.inf, np.float32)
        spread[self.ids] = logits
        return spread

    def _descend(self, growing: Sequence[Growth]) -> None:
        """Feed each request's best new nodes in one forward, and branch from them."""
        width = min(self._shape.width, self.runner.max_rows // len(growing))
        chosen = [(one, one.take(width)) for one in growing]
        logits, states = self.runner.run([self._drafted(_followed(one), len(nodes)) for one, nodes in chosen])
        row = 0
        for one, nodes in chosen:
            for node, score in nodes:
                _followed(one).outs.append(states[row])
                one.branch(node, score, self._target_logits(logits[row]))
                row += 1

    def _drafted(self, followed: Followed, count: int) -> HeadRows:
        """The last nodes fed: each with its parent's state, seeing the text and its own ancestors."""
        from paceline.heads.running import HeadRows
        from paceline.native.frame import FrameSequence

        sequence, parents = followed.sequence, followed.parents
        start, first = sequence.length, len(followed.tokens) - count
        slots = sequence.slots_from(start, len(followed.tokens))
        paths = [_path(parents, place) for place in range(first, len(parents))]
        positions = [start + len(path) - 1 for path in paths]
        where = FrameSequence(sequence.pages, start, positions, slots[first:], slots, paths)
        states = [followed.root if parent < 0 else followed.outs[parent] for parent in parents[first:]]
        return HeadRows(where, followed.tokens[first:], states)


def _followed(growth: Growth) -> Followed:
    assert isinstance(growth.fed, Followed)
    return growth.fed


def _path(parents: Sequence[int], place: int) -> list[int]:
    """A node's place behind its ancestors'."""
    path = [place]
    while parents[path[0]] >= 0:
        path.insert(0, parents[path[0]])
    return path
