"""What other libraries call our parameters: a caller who comes from one is answered with our name.

The names are those of vLLM, transformers, OpenAI, llama.cpp and Ollama.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection

OUR_NAMES = {
    "max_new_tokens": "max_tokens",
    "max_completion_tokens": "max_tokens",
    "max_output_tokens": "max_tokens",
    "n_predict": "max_tokens",
    "num_predict": "max_tokens",
    "max_length": "max_tokens, which does not count the prompt",
    "min_new_tokens": "min_tokens",
    "min_length": "min_tokens, which does not count the prompt",
    "do_sample": "temperature, where 0 is greedy",
    "temp": "temperature",
    "repeat_penalty": "repetition_penalty",
    "sequence_bias": "logit_bias",
    "num_return_sequences": "n",
    "top_logprobs": "logprobs, which is how many",
    "n_probs": "logprobs",
    "output_scores": "logprobs",
    "stop_strings": "stop",
    "stop_sequences": "stop",
    "eos_token_id": "stop_token_ids",
    "bad_words_ids": "bad_words, which takes strings",
    "guided_regex": "regex",
    "guided_choice": "choice",
    "guided_json": "response_format",
    "json_schema": "response_format",
    "structured_outputs": "regex, choice or response_format",
    "guided_decoding": "regex, choice or response_format",
    "streamer": "stream, a method of LLM in place of generate",
    "stream": "stream, a method of LLM in place of generate",
    "assistant_model": "draft_model, an argument of LLM",
    "speculative_config": "drafters, an argument of LLM, generate and stream",
    "prompt_lookup_num_tokens": "drafters='suffix'",
    "num_assistant_tokens": "num_speculative_tokens, an argument of LLM, generate and stream",
    "cache_salt": "tenant, an argument of generate and stream",
}

NOT_OFFERED = {
    "num_beams": "beam search",
    "use_beam_search": "beam search",
    "beam_width": "beam search",
    "early_stopping": "beam search",
    "length_penalty": "beam search",
    "best_of": "a choice of the best sample; n gives them all",
    "typical_p": "typical sampling; top_p and min_p are near to it",
    "epsilon_cutoff": "epsilon sampling; min_p is near to it",
    "eta_cutoff": "eta sampling; min_p is near to it",
    "mirostat": "Mirostat; top_p and min_p are near to it",
    "no_repeat_ngram_size": "a ban on repeated n-grams; the penalties are near to it",
    "guided_grammar": "grammars in EBNF; regex and response_format are near to it",
    "logits_processor": "functions on logits",
    "logits_processors": "functions on logits",
    "stopping_criteria": "functions that stop; stop and stop_token_ids are near to it",
    "guidance_scale": "guidance",
    "lora_request": "adapters chosen by request",
}

# Arguments that are no sampling parameters, and what takes them.
ARGUMENTS = {
    "drafters": "LLM, generate and stream",
    "prediction": "generate and stream",
    "tenant": "generate and stream",
    "draft_model": "LLM",
    "num_speculative_tokens": "LLM, generate and stream",
    "deadline_ms": "generate and stream",
    "add_special_tokens": "generate and stream",
    "truncate_prompt_tokens": "generate and stream",
    "max_slowdown": "LLM",
}


def unknown(name: str, allowed: Collection[str]) -> str:
    """What to tell a caller who gave a parameter that there is not."""
    if name in OUR_NAMES:
        answer = f"Paceline's name for it is {OUR_NAMES[name]}"
    elif name in NOT_OFFERED:
        answer = f"Paceline does not offer {NOT_OFFERED[name]}"
    elif name in ARGUMENTS:
        answer = f"it is an argument of {ARGUMENTS[name]}"
    else:
        close = difflib.get_close_matches(name, allowed, 1)
        answer = f"{f'did you mean {close[0]}? ' if close else ''}allowed: {', '.join(allowed)}"
    return f"unknown parameter {name!r}; {answer}"
