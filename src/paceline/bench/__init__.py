"""Measurements that anyone can repeat: `paceline bench step` and `paceline bench decode`.

step      forward time by row count             decode        whole outputs, beside transformers
forwards  one forward as a contestant           contestants   what `decode` lets compete
timing    interleaving, medians, ratios         summary       speed-ups, shares, the lines to reach
memory    the bandwidth floor                   exactness     plain against speculative, bit by bit
models    random shapes and stock models        provenance    where a figure comes from
tables    tables, progress bars, JSON files     decode_report a decode measurement as tables and JSON

Only cli.py needs typer, and rich is optional, so that a bare machine can run the rest (scripts/gpu_check).
"""
