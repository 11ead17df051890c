"""`paceline bench serve`: load on any OpenAI-compatible server from a process of its own, and what its users wait for.

prompts   what is asked                      schedule    when it is asked
client    one request over HTTP              sse         server-sent events from bytes
answer    what came of it, chunk by chunk    load        many requests, open or closed loop
counters  the server's /metrics              figures     percentiles, goodput, deadlines; vLLM's names
wanted    what is to be said                 report      tables and JSON
sweep     loads and variants in turns        run         from the command line's words to figures
process   our own server, started and ended

Nothing here imports torch. client.py needs httpx, counters.py prometheus-client: `pip install "paceline[server]"`.
"""
