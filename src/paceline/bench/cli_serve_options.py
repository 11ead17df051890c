"""Options of `paceline bench serve`, under the names of `vllm bench serve` where that has them."""

from __future__ import annotations

import typer

from paceline.bench.serve.prompts import DATASETS
from paceline.bench.serve.wanted import METRICS

BASE_URL = typer.Option(None, help="A server that runs.", show_default="our own is started, and ended afterwards")
HOST = typer.Option("127.0.0.1", help="Where it runs, with --port, instead of --base-url.")
PORT = typer.Option(None, min=1, max=65535, help="Its port.", show_default="our own server, on a free port")
BACKEND = typer.Option("openai", help="openai (completions) or openai-chat.")
ENDPOINT = typer.Option(None, help="The path that is asked.", show_default="the backend's")
MODEL = typer.Option(
    None,
    help="The model's name on a running server; of our own also bundled, inflated (to 134 M), a folder or a hub name.",
    show_default="the first of /v1/models; bundled",
)
DTYPE = typer.Option("auto", help="Of our own server: auto, float32, bfloat16 or float16.")
DRAFT_MODEL = typer.Option(None, help="Of our own server.", show_default="the one known for the model, if any")
DATASET = typer.Option(
    "tasks", "--dataset-name", help=f"{', '.join(DATASETS)}: docs/benchmarks.md says what is in them."
)
PATH = typer.Option(None, "--dataset-path", help="The file of custom, or other tasks.")
NUM_PROMPTS = typer.Option(None, min=1, help="Requests.", show_default="each prompt once, or 100 random ones")
NUM_WARMUPS = typer.Option(8, min=0, help="Requests before, which do not count.")
INPUT_LEN = typer.Option(256, min=1, help="Tokens of a random prompt.")
OUTPUT_LEN = typer.Option(64, min=1, help="Tokens asked for.")
IGNORE_EOS = typer.Option(False, "--ignore-eos", help="Outputs of full length; those under a grammar end as they do.")
RATE = typer.Option("inf", "--request-rate", help="Requests a second, in an open loop; inf: all at once.")
BURSTINESS = typer.Option(1.0, min=1e-3, help="Shape of the gamma distribution of gaps; 1 is a Poisson process.")
CONCURRENCY = typer.Option(None, "--max-concurrency", min=1, help="Requests on their way at once: a closed loop.")
SEED = typer.Option(0, min=0, help="Of arrival times and random prompts.")
EXTRA_BODY = typer.Option("{}", help="JSON fields for every request.")
DEADLINE = typer.Option(
    None, "--deadline-ms", min=1.0, help="Sent with every request; the share that meets it is told."
)
GOODPUT = typer.Option(
    [], help="Limits in milliseconds, ttft:200 tpot:50 e2el:5000: requests within all of them count."
)
MORE_GOODPUT = typer.Argument(None, metavar="[NAME:MS]...", help="Further limits of --goodput.", show_default=False)
METRIC_NAMES = typer.Option(",".join(METRICS), "--percentile-metrics", help="What to tell of.")
PERCENTILES = typer.Option("50,95,99", "--metric-percentiles", help="Which percentiles.")
SAVE = typer.Option(False, "--save-result", help="Write all figures as JSON, under vLLM's keys.")
DETAILED = typer.Option(False, "--save-detailed", help="With times and texts of every request.")
FILENAME = typer.Option(None, "--result-filename", help="Where.", show_default="vLLM's name, in this folder")
SWEEP = typer.Option(
    None, help="Instead: closed loops at these numbers of clients, such as 1,4,16, plain beside speculative."
)
REPEATS = typer.Option(3, min=1, help="Rounds of a sweep; medians count.")
