"""Stories decoded plainly and with the bundled draft model, by a hybrid of Qwen3-Next's kind with 134 M parameters.

usage: python benchmarks/hybrid.py [--tokens 96] [--rounds 3] [--prompts N] [--temperatures greedy sampled]
       [--json FILE]

The hybrid says what the bundled target says: every fourth layer is one of the target's, and the three before it, by the
gated delta rule, add nothing. They are computed in full; only what leaves them is multiplied by zeros. Each of the
bundled story prompts is decoded greedily and at temperature 1, by each way in turns in an order drawn anew; outputs
are compared with plain decoding's. A way without a number is paced, by a pacer of its own that learns over the rounds;
with one it drafts as many nodes at every step.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from goal import Goal, interval, print_goals
from stories import AGAIN, CHAIN, MODEL, MODEL_CHAIN, PLAIN, decoded, table_of
from transformers import LlamaForCausalLM, Qwen3NextConfig, Qwen3NextForCausalLM

import paceline
from paceline.bundled import DEFAULT_DRAFT, DEFAULT_TARGET, bundled_path
from paceline.console import progress, show, write_json
from paceline.drafters import make
from paceline.model.pretrained import read_model
from paceline.pacing import AdaptivePacer, FixedPacer, cost_table

REACH = 1.7  # times plain, greedily
TEMPERATURES = {"greedy": 0.0, "sampled": 1.0}
INTERVAL, NEURONS = 4, 4720  # of the hybrid, for 134 M parameters
GAIN = 128.0  # of the norms over queries and keys, whatever they are
LARGE = (900.0, 824.0)  # see `_adopt_attention`


def hybrid_of(model: LlamaForCausalLM) -> Qwen3NextForCausalLM:
    """A hybrid with the function and dtype of `model`, up to rounding."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        hybrid = Qwen3NextForCausalLM._from_config(_config(model.config), dtype=model.dtype)
        hybrid.model.embed_tokens.weight.copy_(model.model.embed_tokens.weight)
        _adopt_norm(hybrid.model.norm, model.model.norm)
        for number, layer in enumerate(hybrid.model.layers):
            layer.mlp.down_proj.weight.zero_()
            if hasattr(layer, "linear_attn"):
                layer.linear_attn.out_proj.weight.zero_()
            else:
                _adopt(layer, model.model.layers[number // INTERVAL])
    return hybrid.eval()  # type: ignore[no-any-return]


def _config(own: Any) -> Qwen3NextConfig:
    """The target's width, and heads of the delta rule as wide as Qwen3-Next's."""
    layers = INTERVAL * own.num_hidden_layers
    return Qwen3NextConfig(
        vocab_size=own.vocab_size,
        hidden_size=own.hidden_size,
        intermediate_size=NEURONS,
        num_hidden_layers=layers,
        num_attention_heads=own.num_attention_heads,
        num_key_value_heads=own.num_key_value_heads,
        head_dim=2 * own.head_dim,
        linear_num_key_heads=own.hidden_size // 128,
        linear_num_value_heads=own.hidden_size // 64,
        full_attention_interval=INTERVAL,
        num_experts=0,
        mlp_only_layers=list(range(layers)),
        max_position_embeddings=own.max_position_embeddings,
        rms_norm_eps=own.rms_norm_eps,
        rope_parameters={**own.rope_parameters, "partial_rotary_factor": 0.5},
        attention_bias=True,
        tie_word_embeddings=True,
        bos_token_id=own.bos_token_id,
        eos_token_id=own.eos_token_id,
    )


def _adopt(ours: Any, theirs: Any) -> None:
    """A layer of the target's; neurons that it has not add nothing."""
    for name in ("input_layernorm", "post_attention_layernorm"):
        _adopt_norm(getattr(ours, name), getattr(theirs, name))
    for name in ("gate_proj", "up_proj", "down_proj"):
        weight = getattr(theirs.mlp, name).weight
        getattr(ours.mlp, name).weight[: len(weight), : weight.shape[1]] = weight
    _adopt_attention(ours.self_attn, theirs.self_attn)


def _adopt_norm(ours: Any, theirs: Any) -> None:
    """These multiply by one more than their weight."""
    ours.weight.copy_(theirs.weight - 1)


def _adopt_attention(ours: Any, theirs: Any) -> None:
    """Heads of twice the width; the target's stand in the first half, the one that is rotated.

    Queries and keys are divided by their lengths here. A query has one large number in its second half and a key
    another in another place: lengths are nearly those of the large numbers then, and products what they were. Gates of
    zero let half through.
    """
    width, half = ours.head_dim, ours.head_dim // 2
    for place, (name, parts) in enumerate((("q_proj", 2), ("k_proj", 1))):
        own = getattr(ours, name)
        weight, bias = own.weight.view(-1, parts, width, own.in_features), own.bias.view(-1, parts, width)
        weight.zero_()[:, 0, :half] = getattr(theirs, name).weight.view(len(weight), half, -1)
        bias.zero_()[:, 0, half + place] = LARGE[place]
    for norm in (ours.q_norm, ours.k_norm):
        norm.weight.fill_(GAIN - 1)
    ours.v_proj.bias.zero_()
    ours.v_proj.weight.view(-1, width, ours.v_proj.in_features)[:, :half] = theirs.v_proj.weight.view(
        -1, half, theirs.v_proj.in_features
    )
    ours.o_proj.bias.zero_()
    into = ours.o_proj.weight.zero_().view(ours.o_proj.out_features, -1, width)
    into[:, :, :half] = 2 * theirs.o_proj.weight.view(ours.o_proj.out_features, -1, half)


def ways(llm: paceline.LLM) -> dict[str, dict[str, Any]]:
    """Options of a call by the name of a way."""
    target = llm.target
    pacer = llm.runtime.thread.call(lambda: AdaptivePacer(cost_table(target, "")))
    chain = make("model", path=DEFAULT_DRAFT, width=1, branch=1, depth=CHAIN)
    return {
        PLAIN: {"drafters": "none"},
        AGAIN: {"drafters": "none"},
        MODEL: {"drafters": [make("model", path=DEFAULT_DRAFT)], "pacer": pacer},
        MODEL_CHAIN: {"drafters": [chain], "pacer": FixedPacer(CHAIN)},
    }


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokens", type=int, default=96)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--prompts", type=int, help="of the stories, at most")
    parser.add_argument("--temperatures", nargs="+", choices=list(TEMPERATURES), default=list(TEMPERATURES))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with progress("making the hybrid"):
        small: Any = read_model(DEFAULT_TARGET, torch.bfloat16, torch.device("cpu"))
        words = str(bundled_path(DEFAULT_TARGET))
        llm = paceline.load(hybrid_of(small), tokenizer=words, drafters="none", cache_tokens=8192)
    with llm:
        options = ways(llm)
        found = {name: decoded(llm, options, TEMPERATURES[name], args) for name in args.temperatures}
        about = {"numerics": llm.target.numerics(), "parameters": llm.info.num_parameters if llm.info else 0}
    for name, figures in found.items():
        show(table_of(f"134m hybrid, stories, {name}: {args.tokens} tokens, {args.rounds} rounds", figures))
    times = [figures[MODEL]["x plain"] for name, figures in found.items() if name == "greedy"]
    reached = [Goal(f"greedy: at least {REACH} x plain", interval(one), one["value"] >= REACH) for one in times]
    print_goals(reached)
    write_json(args.json, {**found, **about, "goals": [goal.as_dict() for goal in reached]})


if __name__ == "__main__":
    main()
