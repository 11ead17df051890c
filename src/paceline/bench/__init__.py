"""Measurements that anyone can repeat: `paceline bench step` and `paceline bench decode`.

step      forward time by row count             decode        whole outputs, beside transformers
forwards  one forward as a contestant           contestants   what `decode` lets compete
llamacpp  llama.cpp's forward as a contestant   step_report   a step measurement as a table, the lines to reach
gguf_file a Llama as a file for llama.cpp       summary       speed-ups, shares, the lines to reach
timing    interleaving, medians, ratios         shapes        named random shapes, lists of numbers
memory    the bandwidth floor                   exactness     plain against speculative, bit by bit
models    random shapes and stock models        provenance    where a figure comes from
tables    tables, progress bars, JSON files     decode_report a decode measurement as tables and JSON
inflate   a Llama grown, its function unchanged tasks         kinds of text for the pacer to meet
collecting  what the report's measures cost

Only cli.py needs typer, and rich is optional, so that a bare machine can run the rest (scripts/gpu_check).
"""
