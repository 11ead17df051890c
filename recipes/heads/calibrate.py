"""How often a trained head is right, by how sure its target is: the curves of `paceline.doctor.heads`.

usage: python recipes/heads/calibrate.py HEAD --work runs/heads

Held-out text of the recipe's run, walked as its evaluation does. Printed are the curves for greedy text and for
sampled, and beside each kind of text what they make of it: tokens a step by the curve, and by the head itself.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from paceline.bundled import DEFAULT_TARGET
from paceline.heads.formats.speculators_dspark import read_head
from paceline.model.pretrained import read_model
from paceline.training import anchors
from paceline.training.block import BlockTrainee
from paceline.training.data import Corpus
from paceline.training.evaluate import DEPTH, accepted
from paceline.training.packing import pack
from paceline.training.recipe import usual

Cells = dict[tuple[str, float], list[tuple[np.ndarray, np.ndarray]]]  # kind, temperature: log-odds, chances (N, DEPTH)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("head", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/heads"))
    args = parser.parse_args()
    cells = walked(args.head, args.work)
    for name, kinds in (("GREEDY", [k for k in cells if k[1] == 0]), ("SAMPLED", [k for k in cells if k[1] > 0])):
        odds, chances = (np.concatenate([part[i] for k in kinds for part in cells[k]]) for i in (0, 1))
        slots, slope = fitted(odds, chances)
        print(f"{name} = Curve(({', '.join(f'{s:.3f}' for s in slots)}), {slope:.3f})")
        for kind in sorted(kinds):
            own = [np.concatenate([part[i] for part in cells[kind]]) for i in (0, 1)]
            curve = 1 / (1 + np.exp(-(slots + slope * own[0])))
            tau = [1 + np.cumprod(c, 1).sum(1).mean() for c in (curve, own[1])]
            print(f"  {kind[0]} at {kind[1]:g}: {tau[0]:.2f} by the curve, {tau[1]:.2f} by the head")


@torch.no_grad()
def walked(folder: Path, work: Path) -> Cells:
    """Log-odds of the target's largest probability, and the head's chance of acceptance, at every slot."""
    target = read_model(DEFAULT_TARGET, "auto", torch.device("cpu"), attn_implementation="sdpa")
    head = read_head(folder)
    config = head.config
    recipe = usual(
        target,
        taps=config.taps,
        block_size=config.block_size,
        rank=config.rank,
        transition=config.transition,
        num_layers=config.layers.num_hidden_layers,
        intermediate_size=config.layers.intermediate_size,
    )
    trainee = BlockTrainee(target, recipe)
    trainee.head.load_state_dict(head.own_state(), strict=False)
    trainee.module.eval()
    documents = Corpus(work / "held_out", config.vocab_size).read(True)
    packed = pack(documents, recipe.length)
    found: Cells = {}
    for start in range(0, len(packed), 8):
        batch = packed.rows(slice(start, start + 8), torch.device("cpu"))
        chosen = anchors.spread(batch, 5, DEPTH)
        wanted, given = trainee.logits(batch, chosen)
        rows, last = chosen.before.flatten(1), batch.tokens.shape[1] - 1
        heat = batch.heat.gather(1, rows).flatten()
        tokens = batch.tokens.gather(1, (rows + 1).clamp(max=last)).flatten()
        chances = accepted(wanted, given, heat, tokens).view(-1, DEPTH).numpy()
        scale = torch.where(heat > 0, heat, 1.0)[:, None]
        largest = (wanted / scale).softmax(-1).amax(-1).clamp(1e-3, 1 - 1e-3).view(-1, DEPTH)
        odds = (largest / (1 - largest)).log().numpy()
        is_valid = chosen.is_valid.all(-1).flatten().numpy()
        sources = batch.source.gather(1, chosen.places).flatten().tolist()
        keys = [(documents[i].entry.category, float(documents[i].entry.temperature)) for i in sources]
        for key in dict.fromkeys(keys):
            mine = is_valid & np.array([one == key for one in keys])
            found.setdefault(key, []).append((odds[mine], chances[mine]))
    return found


def fitted(odds: np.ndarray, chances: np.ndarray) -> tuple[np.ndarray, float]:
    """A logistic regression of chances on log-odds, with a constant for each slot: cross entropy, by L-BFGS."""
    x, y = torch.from_numpy(odds).double(), torch.from_numpy(chances).double()
    slots, slope = torch.zeros(x.shape[1], dtype=torch.double), torch.ones((), dtype=torch.double)
    for weight in (slots, slope):
        weight.requires_grad_(True)
    solver = torch.optim.LBFGS([slots, slope], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        solver.zero_grad()
        loss = torch.nn.functional.binary_cross_entropy_with_logits(slots + slope * x, y)
        loss.backward()
        return loss

    solver.step(closure)
    return slots.detach().numpy(), float(slope.detach())


if __name__ == "__main__":
    main()
