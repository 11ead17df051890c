"""Drafts from what the target thought the last times: its likeliest continuations of each token, kept in a table.

Token Recycling (Luo et al., arXiv 2408.08696): verification computes logits for accepted and for rejected nodes
alike; the best few of each row replace what was known of the row's token, and chains of such look-ups make a tree.
Departures: a row is kept for the last two tokens as well, and believed before that of the last alone; the text's own
last follower, of either, counts too, and is all there is for a prompt, whose logits are never computed; the tree is
grown by chance, not from a template.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import ClassVar

from paceline.drafters._recycling import Table, make_table, token_before
from paceline.drafters.base import BaseDrafter, option, register
from paceline.engine.request import DraftLimits, Environment, Request, StepOutcome
from paceline.engine.tree import DraftTree


@register("recycle")
@dataclass(eq=False)
class RecycleDrafter(BaseDrafter):
    """Recycles the logits that verification leaves over. It draws on all texts of a tenant, and on no one else's.

    Memory, per tenant: 8 * width + 12 bytes for each token of the vocabulary and each of `PAIRS` slots: 1.6 MB for a
    vocabulary of 4096 and 12.8 MB for one of 151,936, at a width of 8.
    """

    reads_logits: ClassVar[bool] = True
    width: int = option(8, ge=1, le=64, help="continuations kept of each token")
    rows: int = option(8, ge=1, help="rows of logits learnt from in one step, the accepted ones first")
    min_chance: float = option(0.01, ge=1e-6, le=1.0, help="do not propose nodes believed reached less often than this")
    tenants: int = option(8, ge=1, help="tables kept; the tenant that was served longest ago is forgotten")
    _tables: OrderedDict[str, Table] = field(default_factory=OrderedDict, init=False)
    _read: dict[int, int] = field(default_factory=dict, init=False)  # request id -> its tokens in the table
    _vocab_size: int = field(default=0, init=False)

    def attach(self, environment: Environment) -> None:
        """See `Drafter`."""
        self._vocab_size = environment.vocab_size

    def start(self, request: Request) -> bool:
        """See `Drafter`."""
        self._read[request.id] = 0
        return True

    def propose_one(self, request: Request, limits: DraftLimits) -> DraftTree:
        """The continuations with the highest products of scores, best first."""
        table = self._table(request)
        table.read(request.tokens, self._read[request.id])
        self._read[request.id] = len(request.tokens) - 1  # what follows the pending token is not known yet
        root = (token_before(request.tokens, len(request.tokens) - 1), request.tokens[-1])
        return table.grow(root, self.min_chance, limits, self.name)

    def observe(self, outcome: StepOutcome) -> None:
        """See `Drafter`: the rows of the path, then of rejected nodes, as far as `rows` goes."""
        tree, text = outcome.tree, outcome.request.tokens
        place = len(text) - len(outcome.tokens) - 1
        pending = (token_before(text, place), text[place])
        on_path = {-1, *outcome.path}
        nodes = [-1, *outcome.path, *(node for node in range(len(tree)) if node not in on_path)][: self.rows]
        nodes.reverse()  # a token that has several rows keeps the last
        pairs = [_pair(tree, node, pending) for node in nodes]
        self._table(outcome.request).learn(outcome.logits, [node + 1 for node in nodes], pairs)

    def finish(self, request: Request) -> None:
        """See `Drafter`."""
        self._read.pop(request.id, None)

    def close(self) -> None:
        """See `Drafter`."""
        self._tables.clear()

    def _table(self, request: Request) -> Table:
        tenant = request.hints.tenant
        if tenant not in self._tables:
            self._tables[tenant] = make_table(self._vocab_size, self.width)
            if len(self._tables) > self.tenants:
                self._tables.popitem(last=False)
        self._tables.move_to_end(tenant)
        return self._tables[tenant]


def _pair(tree: DraftTree, node: int, pending: tuple[int, int]) -> tuple[int, int]:
    """The last two tokens at a node; `pending` are those at the pending token, node -1."""
    if node < 0:
        return pending
    parent = tree.parents[node]
    return pending[1] if parent < 0 else tree.tokens[parent], tree.tokens[node]
