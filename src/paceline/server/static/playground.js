// The page: a form, a run or two, and views of them.

import { about, streamed } from "./api.js";
import { figures, legend, lengthsChart, positionsChart } from "./charts.js";
import { byId, seconds } from "./dom.js";
import { asCurl, asJson, asPython } from "./export.js";
import { asRacer, Form, withAlternatives } from "./form.js";
import { watchLoad } from "./load.js";
import { classOf } from "./palette.js";
import { Comparison, replay } from "./race.js";
import { Run } from "./run.js";
import { StripView } from "./steps.js";
import { TextView, Tip } from "./text.js";
import { showTree } from "./tree.js";

const form = new Form();
const tip = new Tip(byId("tip"));
const panes = [0, 1].map((i) => byId(`pane-${i}`));
const texts = panes.map((pane) => new TextView(pane.querySelector(".text"), tip, chooseOfText));
const strip = new StripView(byId("strip"), (index) => chooseStep(index));

const stillness = matchMedia("(prefers-reduced-motion: reduce)");

let runs = []; // the speculative one first
let running = null; // an AbortController
let endReplay = null;
let chosenStep = null;
let isDrawing = false;

async function begin() {
  try {
    const server = await about(form.key);
    for (const name of server.drafters) classOf(name); // so that colours do not depend on who comes first
    form.fit(server);
    form.showMode();
    watchLoad(byId("load"), server.load);
    tell("");
  } catch (problem) {
    if (problem.status === 401) byId("key-part").open = true;
    tell(problem.message);
  }
}

function tell(problem) {
  byId("problem").textContent = problem;
  byId("problem").hidden = !problem;
}

function say(status) {
  byId("status").textContent = status;
}

/** Decode what the form asks for, once or, as a race, twice. */
async function start(isRace) {
  if (running || !byId("form").reportValidity()) return;
  const body = form.body();
  const bodies = isRace ? [asRacer(body, false), asRacer(body, true)] : [withAlternatives(body)];
  running = new AbortController();
  runs = bodies.map((one, i) => new Run(form.path, one, i === 1));
  prepare(isRace);
  try {
    const comparison = isRace ? new Comparison() : null;
    for (const side of runs.keys()) await decode(side, comparison); // in turn: together they would slow each other
    say(summary());
  } catch (problem) {
    if (problem.name === "AbortError") say("Stopped.");
    else tell(problem.message);
  } finally {
    running = null;
    finish();
  }
}

async function decode(side, comparison) {
  const run = runs[side];
  texts[side].begin(run);
  run.begin();
  for await (const chunk of streamed(run.path, run.body, form.key, running.signal)) {
    texts[side].add(run.add(chunk));
    comparison?.grow(side, run.text);
    if (comparison) compare(comparison);
    drawSoon();
  }
  texts[side].end();
}

function prepare(isRace) {
  endReplay?.();
  tell("");
  say("");
  tip.hide();
  strip.begin();
  chosenStep = null;
  for (const id of ["empty", "why", "after", "verdict", "replay", "read", "export"]) byId(id).hidden = true;
  for (const id of ["figures", "legend", "steps", "charts"]) byId(id).hidden = false;
  byId("verdict").hidden = !isRace;
  panes[1].hidden = !isRace;
  panes[0].querySelector("h3").hidden = !isRace;
  byId("panes").classList.toggle("two", isRace);
  for (const view of texts) view.clear();
  byId("ratio").textContent = "";
  byId("differ").textContent = "0 bytes differ";
  byId("step-words").textContent = "";
  byId("tree").replaceChildren();
  enable();
}

function finish() {
  draw();
  enable();
  for (const view of texts) view.end();
  const [run] = runs;
  const sentence = run.pacing?.sentence;
  byId("why").textContent = sentence ?? "";
  byId("why").hidden = !sentence;
  byId("after").hidden = !run.tokens.length;
  byId("export").hidden = !run.tokens.length;
  byId("replay").hidden = runs.length < 2 || !runs.every((one) => one.isFinished) || stillness.matches;
  showRead(run.prompt);
  showExport();
  if (chosenStep === null && run.steps.length) chooseStep(likeliest(run));
}

/** The step to show first: the one with the largest tree among those that took a guess and refused another. */
function likeliest(run) {
  const worth = run.steps.map((step) => step.tokens.length * (step.numAccepted > 0 ? 2 : 1));
  return worth.indexOf(Math.max(...worth));
}

function enable() {
  byId("generate").disabled = byId("race").disabled = Boolean(running);
  byId("stop-run").disabled = !running;
}

function drawSoon() {
  if (isDrawing) return;
  isDrawing = true;
  requestAnimationFrame(() => {
    isDrawing = false;
    draw();
  });
}

function draw() {
  const [run] = runs;
  runs.forEach((one, side) => showClock(side, one.decodeMs));
  byId("figures").replaceChildren(...figures(run));
  byId("legend").replaceChildren(...legend(run));
  byId("positions").replaceChildren(positionsChart(run));
  byId("lengths").replaceChildren(lengthsChart(run));
  strip.update(run);
}

function showClock(side, value) {
  panes[side].querySelector(".clock").textContent = seconds(value);
}

function compare(comparison) {
  const areDone = runs.every((run) => run.isFinished);
  const count = comparison.differing(areDone);
  byId("differ").textContent = `${count} ${count === 1 ? "byte differs" : "bytes differ"}`;
  byId("verdict").classList.toggle("wrong", count > 0);
  const [own, plain] = runs.map((run) => run.decodeMs);
  const times = areDone && own ? `, ${(plain / own).toFixed(2)} times as fast` : "";
  byId("ratio").textContent = `of ${comparison.compared} compared${times}`;
}

function summary() {
  const [run] = runs;
  const counts = `Done: ${run.tokens.length} tokens in ${seconds(run.decodeMs)}, ${run.tokensPerStep.toFixed(2)} a step.`;
  return runs.length < 2 ? counts : `${counts} ${byId("differ").textContent} ${byId("ratio").textContent}.`;
}

function chooseOfText(run, index) {
  if (run === runs[0]) chooseStep(index);
}

function chooseStep(index) {
  if (!runs[0]?.steps[index] || index === chosenStep) return;
  chosenStep = index;
  strip.mark(index);
  texts[0].mark(index);
  showTree(byId("tree"), byId("step-words"), runs[0], index);
}

function showRead(prompt) {
  byId("read").hidden = !prompt;
  if (!prompt) return;
  const cached = document.createElement("mark");
  cached.textContent = prompt.cached_text;
  byId("read-text").replaceChildren(...(prompt.cached_text ? [cached] : []), prompt.text);
  const cachedWords = prompt.num_cached_tokens
    ? `the ${prompt.num_cached_tokens} that are shaded were found in the prefix cache`
    : "none of them was in the prefix cache";
  byId("read-words").textContent = `${prompt.num_tokens} tokens; ${cachedWords}.`;
}

const RAMPS = { probability: ["likely", "unlikely"], entropy: ["sure", "unsure"], time: ["quick", "slow"] };

function colourBy(measure) {
  for (const view of texts) view.colourBy(measure);
  const [low, high] = byId("ramp").querySelectorAll("span");
  [low.textContent, high.textContent] = RAMPS[measure] ?? ["", ""];
  byId("ramp").hidden = !(measure in RAMPS);
}

function exportForm() {
  return document.querySelector("input[name=form]:checked").value;
}

function exported() {
  const hasKey = Boolean(form.key);
  return { curl: () => asCurl(runs[0], hasKey), python: () => asPython(runs[0], hasKey), json: () => asJson(runs) }[
    exportForm()
  ]();
}

function showExport() {
  if (runs.length) byId("exported").textContent = exported();
}

async function copy() {
  try {
    await navigator.clipboard.writeText(exported());
    say("Copied.");
  } catch {
    getSelection().selectAllChildren(byId("exported")); // no clipboard without https: the keyboard has one
    say("Selected; copy with the keyboard.");
  }
}

function download() {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([exported()], { type: "text/plain" }));
  link.download = `paceline.${{ curl: "sh", python: "py", json: "json" }[exportForm()]}`;
  link.click();
  URL.revokeObjectURL(link.href);
}

function playAgain() {
  if (endReplay) return endReplay();
  byId("replay").textContent = "End the replay";
  const show = (side, count, now) => {
    texts[side].reveal(count);
    showClock(side, now);
  };
  endReplay = replay(runs, show, () => {
    endReplay = null;
    byId("replay").textContent = "Replay side by side";
  });
}

function listen() {
  const on = (id, act, kind = "click") => byId(id).addEventListener(kind, act);
  on("form", (event) => (event.preventDefault(), start(false)), "submit");
  on("race", () => start(true));
  on("stop-run", () => running?.abort());
  on("again", () => (form.newSeed(), start(runs.length === 2)));
  on("continue", () => form.goOn(runs[0]));
  on("replay", playAgain);
  on("examples", (event) => event.target.dataset.prompt && form.fill(event.target.dataset.prompt));
  on("copy", copy);
  on("download", download);
  on("key", begin, "change");
  on("forms", showExport, "change");
  on("measures", (event) => colourBy(event.target.value), "change");
  addEventListener("keydown", (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) start(false);
    else if (event.key === "Escape") running?.abort();
  });
}

listen();
begin();
