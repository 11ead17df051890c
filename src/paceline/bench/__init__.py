"""Measurements that anyone can repeat: `paceline bench step`, `decode`, `pacer` and `doctor`; `show` draws results.

step      forward time by row count             decode        whole outputs, beside transformers
forwards  one forward as a contestant           contestants   what `decode` lets compete
llamacpp  llama.cpp's forward as a contestant   step_report   a step measurement as a table, the lines to reach
gguf_file a Llama as a file for llama.cpp       summary       speed-ups, shares, the lines to reach
timing    interleaving, medians, ratios         shapes        named random shapes, lists of numbers
memory    the bandwidth floor                   exactness     plain against speculative, bit by bit
models    random shapes and stock models        provenance    where a figure comes from
reach     lines to reach                          decode_report a decode measurement as tables and JSON
names     of contestants                     prompt_sets   files of prompts, by prompt_formats
show/     results, drawn again               prompting     from prompts to token ids
inflate   a Llama grown, its function unchanged tasks         kinds of text for the pacer to meet
pacer     every drafter alone, and paced        pacer_summary speed-ups by task and over the mix
doctor    predictions against measurements      pacer_reach   the pacer's lines to reach
subject   the target, bundled or inflated       pacer_report  a pacer measurement as tables and JSON
watch     host time, step by step               collecting    what the report's measures cost
witness   what each request emitted, and where it parted from what was expected

Only cli*.py need typer, and rich is optional but for show/, so that a bare machine can run the rest
(scripts/gpu_check).
"""
