"""What is wrong, why, and what to change. Each check is a function of the facts alone.

Knows nothing of models.
"""

from __future__ import annotations

from dataclasses import dataclass

from paceline.doctor.facts import Facts

PROBLEM, ADVICE, FACT = "problem", "advice", "fact"
_ENOUGH = 50  # proposals from which it says something that none was accepted
_OVERHEAD = 0.3  # share of a plain step beside the forward, from which that is what to mend
_STALE = 0.75  # of what a head brought in training, below which it has gone stale
_WORTH = 1.1  # times what is had already, from which a head is worth training
_FLAT, _STEEP = 1.6, 4.0  # eight rows over one: below, rows are nearly free; above, they are not worth much


@dataclass(frozen=True)
class Finding:
    """One thing found."""

    severity: str  # "problem", "advice" or "fact"
    what: str
    why: str
    change: str  # empty for a fact

    def __str__(self) -> str:
        return " ".join(filter(None, (f"{self.what}.", f"{self.why}.", f"{self.change}." if self.change else "")))


def diagnose(facts: Facts) -> list[Finding]:
    """All that the checks find, problems first."""
    found = [finding for check in CHECKS for finding in check(facts)]
    return sorted(found, key=lambda finding: (PROBLEM, ADVICE, FACT).index(finding.severity))


def vocabulary(facts: Facts) -> list[Finding]:
    """A draft model that was refused."""
    if facts.draft is None or facts.draft.refusal is None:
        return []
    why = f"It was refused: {facts.draft.refusal}"
    change = "Take a draft model that comes with its tokenizer, best the target's own, or leave it out"
    return [Finding(PROBLEM, f"The draft model {facts.draft.name!r} cannot draft here", why, change)]


def never_accepted(facts: Facts) -> list[Finding]:
    """Drafters that were asked often enough and never right."""
    return [
        Finding(
            ADVICE,
            f"Nothing that {name} drafted was accepted",
            f"It was asked {found.num_proposals} times and took {found.seconds * 1e3:.0f} ms",
            f"Leave {name} out if your text is always like this; the pacer seldom asks it as it is",
        )
        for name, found in facts.drafters.items()
        if found.num_proposals >= _ENOUGH and found.num_accepted == 0
    ]


def template(facts: Facts) -> list[Finding]:
    """Prompts without the chat template that the model was trained with."""
    num_bare = facts.num_prompts - facts.num_templated
    if not facts.template_words or not num_bare:
        return []
    what = f"{num_bare} of {facts.num_prompts} prompts are not in the model's chat template"
    why = f"They have none of {', '.join(facts.template_words[:3])}: the model says other things than in a conversation"
    return [Finding(PROBLEM, what, why, "Use llm.chat, or put the prompts into the template")]


def quantisation(facts: Facts) -> list[Finding]:
    """A quantised target, and a draft model that was trained beside the unquantised one."""
    if facts.quantisation is None or facts.draft is None:
        return []
    what = f"The target is quantised ({facts.quantisation}) and the draft model {facts.draft.name!r} is not known to be"
    why = "The target's rounding decides near ties, which the draft model foresees less well"
    return [Finding(ADVICE, what, why, "Compare with the unquantised target, or draft with a model quantised alike")]


def draft_context(facts: Facts) -> list[Finding]:
    """Texts longer than the draft model can read."""
    draft = facts.draft
    if draft is None or draft.max_length is None or facts.longest <= draft.max_length:
        return []
    what = f"The longest text has {facts.longest} tokens, and the draft model reads {draft.max_length}"
    why = "It drafts nothing beyond them"
    return [Finding(PROBLEM, what, why, "Take a draft model with a longer context, or expect other drafters alone")]


def threads(facts: Facts) -> list[Finding]:
    """Processors left idle."""
    if not facts.device.startswith("cpu") or facts.threads >= facts.cores:
        return []
    what = f"{facts.threads} of {facts.cores} processors are used"
    change = f"Set OMP_NUM_THREADS={facts.cores}, or torch.set_num_threads before loading"
    return [Finding(PROBLEM, what, "Forwards take longer than they need to", change)]


def busy(facts: Facts) -> list[Finding]:
    """Processors that others keep at work, and what a forward takes for it."""
    if facts.load is None or not facts.load.is_busy:
        return []
    others, pace = facts.load.busy_elsewhere, facts.load.pace
    what = (
        f"The machine is busy: other processes took {others:.1f} of {facts.cores} processors, and a forward takes "
        f"{pace.slowdown:.1f} times its quickest time ({pace.usual * 1e3:.2g} ms, not {pace.quickest * 1e3:.2g})"
    )
    return [
        Finding(PROBLEM, what, "All figures are of the machine as it is", "End them, or ask again when it is quiet")
    ]


def prepacking(facts: Facts) -> list[Finding]:
    """Linears multiplied as they lie in memory, where several rows cost more than they need to."""
    if facts.device.startswith("cpu") and facts.path == "stock":
        why = f"In {facts.dtype} several rows then cost far more than one, and so does every draft"
        change = (
            "Install with a C compiler, so that the native kernels are built; `paceline models` says why they are not"
        )
        return [Finding(PROBLEM, "Weights are not packed for the processor", why, change)]
    return []


def bound(facts: Facts) -> list[Finding]:
    """What a step's time is spent on."""
    ratio = facts.row_seconds[8] / facts.row_seconds[1] if {1, 8} <= facts.row_seconds.keys() else None
    found = []
    if facts.host_share > _OVERHEAD:
        what = f"Overhead-bound: {facts.host_share:.0%} of a plain step is spent beside the forward"
        why = "The model is so small that deciding and drafting cost as much as saying"
        found.append(Finding(ADVICE, what, why, "Batch requests; drafts that take a model of their own will not pay"))
    if ratio is not None and ratio < _FLAT:
        what = f"Memory-bound: a forward of 8 rows takes {ratio:.1f} times one of 1 row"
        found.append(Finding(FACT, what, "Reading the weights is most of it, so drafts are verified nearly free", ""))
    elif ratio is not None and ratio > _STEEP:
        what = f"Compute-bound: a forward of 8 rows takes {ratio:.1f} times one of 1 row"
        change = "Use bfloat16 where the processor has instructions for it, or more threads"
        found.append(Finding(ADVICE, what, "A draft pays only if it is very likely right", change))
    return found


def stale_head(facts: Facts) -> list[Finding]:
    """What a head brings, and whether that is what it was trained to bring."""
    if facts.head is None:
        return []
    found = facts.head
    what = f"The {found.name} head brings {found.length:.2f} tokens a step on this text"
    if found.promised is None:
        return [Finding(FACT, what, "Its folder does not say what it brought where it was trained", "")]
    why = f"On held-out text of its training it brought {found.promised:.2f}"
    if found.length >= _STALE * found.promised:
        return [Finding(FACT, what, why, "")]
    change = "It is stale, or was trained for other text: train one on yours (`paceline train`, docs/training.md)"
    return [Finding(PROBLEM, what, why, change)]


def missing_head(facts: Facts) -> list[Finding]:
    """A head on the target's hidden states, which could be trained."""
    if facts.forecast is None:
        return []
    found = facts.forecast
    what = (
        f"A block head trained on such text should bring {found.mean_acceptance_length} tokens a step and "
        f"{found.speedup} times plain decoding"
    )
    why = "That follows from how sure the target is of what it says, and from what forwards cost here"
    if found.speedup.low <= _WORTH * facts.speedup:
        return [Finding(FACT, what, why, "")]
    return [Finding(ADVICE, what, why, "Train one: `paceline train MODEL --prompts FILE` (docs/training.md)")]


CHECKS = (
    vocabulary,
    template,
    draft_context,
    threads,
    busy,
    prepacking,
    never_accepted,
    quantisation,
    bound,
    stale_head,
    missing_head,
)
