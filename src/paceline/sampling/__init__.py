"""From logits to a token: the sampler, its noise, and what structured output allows."""
