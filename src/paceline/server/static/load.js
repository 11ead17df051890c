// How busy the server is, once a second while the page is looked at, from the metrics that vLLM's dashboards read.

import { make, percent } from "./dom.js";

const EVERY = 1000;
const NAMES = {
  running: "vllm:num_requests_running",
  waiting: "vllm:num_requests_waiting",
  cache: "vllm:kv_cache_usage_perc",
  hits: "vllm:prefix_cache_hits_total",
  queries: "vllm:prefix_cache_queries_total",
};

/** Show the load in an element, if the server tells it. */
export function watchLoad(element, endpoints) {
  if (!endpoints.includes("/metrics")) return;
  const look = async () => {
    if (document.hidden) return;
    try {
      const answer = await fetch("metrics");
      if (answer.ok) show(element, read(await answer.text()));
    } catch {
      element.hidden = true; // the server is gone; what is asked of it next says so
    }
  };
  look();
  setInterval(look, EVERY);
}

/** The sums of the metrics by name, from Prometheus's text format. */
export function read(text) {
  const sums = new Map();
  for (const line of text.split("\n")) {
    const found = /^([a-zA-Z_:][\w:]*)(?:\{.*\})? (\S+)/.exec(line);
    if (found) sums.set(found[1], (sums.get(found[1]) ?? 0) + Number(found[2]));
  }
  return Object.fromEntries(Object.entries(NAMES).map(([short, name]) => [short, sums.get(name)]));
}

function show(element, load) {
  const pairs = [];
  if (load.running !== undefined) pairs.push(["running", String(load.running)]);
  if (load.waiting !== undefined) pairs.push(["waiting", String(load.waiting)]);
  if (load.cache !== undefined) pairs.push(["cache used", percent(load.cache)]);
  if (load.queries) pairs.push(["prefix hits", percent(load.hits / load.queries)]);
  element.replaceChildren(...pairs.map(([name, value]) => make("div", "", [make("dt", "", name), make("dd", "", value)])));
  element.hidden = !pairs.length;
}
