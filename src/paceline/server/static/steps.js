// A strip with one bar per step: what was drafted, accepted and rejected, and how long it took.

import { make, ms, walkable } from "./dom.js";
import { classOf } from "./palette.js";

const HEIGHT = 64; // pixels of the highest bar of nodes
const UNIT = 7; // of one node, while they fit
const LEAST_APART = 3; // nodes that are lower are not drawn apart
const MS_HEIGHT = 26; // of the longest bar of time
const MOST_MEDIANS = 4; // a step that took longer is cut there, so that it leaves the others something to show

export class StripView {
  constructor(container, choose) {
    this._container = container;
    this._choose = choose;
    this._most = 1;
    this._times = []; // of the steps, in order of size
    walkable(container, ".step");
    const at = (event) => event.target.closest?.(".step");
    for (const kind of ["pointerover", "focusin", "click"]) {
      container.addEventListener(kind, (event) => at(event) && choose(Number(at(event).dataset.i)));
    }
  }

  begin() {
    this._container.replaceChildren();
    this._most = 1;
    this._times = [];
  }

  /** Bring up to date with a run's steps. */
  update(run) {
    const first = this._container.childElementCount;
    const added = run.steps.slice(first);
    if (!added.length) return;
    this._most = Math.max(this._most, ...added.map((step) => step.tokens.length));
    this._times = [...this._times, ...added.map((step) => step.ms)].sort((a, b) => a - b);
    this._container.append(...added.map((step, i) => made(step, first + i)));
    const unit = Math.min(UNIT, HEIGHT / this._most);
    this._container.style.setProperty("--unit", `${unit}px`);
    this._container.style.setProperty("--gap", unit < LEAST_APART ? "0px" : "1px");
    const longest = Math.min(this._times.at(-1), MOST_MEDIANS * this._times[this._times.length >> 1]);
    this._container.style.setProperty("--ms-unit", `${MS_HEIGHT / (longest || 1)}px`);
  }

  mark(index) {
    for (const marked of this._container.querySelectorAll("[aria-current]")) marked.removeAttribute("aria-current");
    this._container.children[index]?.setAttribute("aria-current", "step");
  }
}

function cell(name, count) {
  const element = make("i", `cell ${name}`);
  element.style.setProperty("--n", count);
  return element;
}

/** Names with how often each comes in a row. */
function inRows(names) {
  const rows = [];
  for (const name of names) {
    if (rows.at(-1)?.[0] === name) rows.at(-1)[1] += 1;
    else rows.push([name, 1]);
  }
  return rows;
}

function made(step, index) {
  const onPath = step.path.slice(0, step.numAccepted);
  const numLeft = step.tokens.length - onPath.length;
  const taken = inRows(onPath.map((node) => classOf(step.sources[node])));
  const cells = taken.map(([name, count]) => cell(`taken ${name}`, count));
  const nodes = make("span", "nodes", [make("i", "cell own"), ...cells, ...(numLeft ? [cell("left", numLeft)] : [])]);
  const time = cell("ms", step.ms.toFixed(3));
  const words = `Step ${index + 1}: ${step.tokens.length} drafted, ${onPath.length} accepted, ${ms(step.ms)}`;
  return make("button", "step", [nodes, make("span", "times", time)], {
    type: "button",
    "aria-label": words,
    "data-i": index,
    tabindex: index ? -1 : 0,
  });
}
