"""Measurements that anyone can repeat: `paceline bench step`, `decode`, `pacer`, `doctor`, `busy`, `serve`.

step      forward time by row count             decode        whole outputs, beside transformers
forwards  one forward as a contender            contenders    who competes in `decode`
timing    interleaving, medians, ratios         names         of contenders
memory    the bandwidth floor                   summary       speed-ups, and where a step's time goes
models    random models of named shapes         prompting     from prompts to token ids
shapes    named random shapes, lists of numbers collecting    what the report's measures cost
pacer     every drafter alone, and paced        doctor        predictions against measurements
tasks     kinds of text for the pacer to meet   subject       the target, bundled or inflated
watch     host time, step by step               inflate       a Llama grown, its function unchanged
busy      beside busy processes         busy_sides    Paceline's process, transformers' process
fresh     a process of its own          spinning      processes that do nothing but compute
cold      first requests of a process   cold_side     that process
row       requests in a row that cannot be drafted
serve/    load on a server of any kind  servable      in subject: weights that a server loads
*_report  a measurement as tables and JSON      pacer_summary speed-ups by task and over the mix

Nothing else imports this package, but for the command line, which registers cli.py. Only cli*.py need typer.
"""
