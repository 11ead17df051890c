// The draft tree of one step: each guess with its probability, the path that the model took, what it said instead.

import { make, ms, visible } from "./dom.js";
import { classOf } from "./palette.js";

const ROW = 34;
const CHARACTER = 8;
const MOST_CHARACTERS = 16;
const NUM_BEFORE = 8; // characters shown of what came before the tree
const GAP = 30;
const SVG = "http://www.w3.org/2000/svg";

/** Draw a step's tree into a container, and tell it in words. */
export function showTree(container, words, run, index) {
  const step = run.steps[index];
  const emitted = run.tokensOf(index);
  words.textContent = told(step, emitted, index);
  const before = step.first ? run.tokens[step.first - 1].text : (run.prompt?.text ?? "");
  const nodes = laidOut(step, emitted, before);
  const width = Math.max(...nodes.map((node) => node.x + node.width));
  const height = (1 + Math.max(...nodes.map((node) => node.row))) * ROW;
  const lines = document.createElementNS(SVG, "svg");
  lines.setAttribute("width", width);
  lines.setAttribute("height", height);
  for (const node of nodes) if (node.parent) lines.append(line(node.parent, node));
  const field = make("div", "field", [lines, ...nodes.map(chip)]);
  field.style.width = `${width}px`;
  field.style.height = `${height}px`;
  container.replaceChildren(field);
}

/** A step in words, for whoever does not see the tree. */
export function told(step, emitted, index) {
  const drafters = [...new Set(step.sources)].join(", ");
  const drafted = step.tokens.length
    ? `${step.tokens.length} drafted by ${drafters}, ${step.numAccepted} accepted`
    : "nothing was drafted";
  const times = `${ms(step.ms)}: drafting ${ms(step.draft_ms)}, the model ${ms(step.forward_ms)}, the rest ${ms(step.other_ms)}`;
  return `Step ${index + 1}: ${drafted}. ${times}. ${instead(step, emitted)}`.trim();
}

function instead(step, emitted) {
  const own = emitted[step.path.length];
  if (!own) return "";
  const last = step.path.at(-1) ?? -1;
  const refused = step.parents.flatMap((parent, node) => (parent === last ? [node] : []));
  const said = `The model then said “${visible(own.text)}”`;
  if (!refused.length) return `${said}.`;
  const best = refused.reduce((a, b) => (step.scores[b] > step.scores[a] ? b : a));
  return `${said} in place of “${visible(step.texts[best])}” (${chance(step.scores[best])}).`;
}

function chance(score) {
  return score === null ? "–" : score.toFixed(2);
}

/** Nodes with places: columns by depth, a row for each leaf, the accepted path in the first row. */
function laidOut(step, emitted, before) {
  const taken = new Set(step.path.slice(0, step.numAccepted));
  const root = { text: visible(before.slice(-NUM_BEFORE)), kind: "root", depth: 0, children: [], parent: null };
  const drafts = step.tokens.map((_, i) => ({
    text: visible(step.texts[i]),
    score: chance(step.scores[i]),
    kind: `${taken.has(i) ? "taken" : "left"} ${classOf(step.sources[i])}`,
    source: step.sources[i],
    depth: step.depths[i],
    children: [],
    parent: null,
  }));
  const link = (node, parent) => {
    node.parent = parent;
    parent.children.push(node);
  };
  drafts.forEach((node, i) => link(node, step.parents[i] < 0 ? root : drafts[step.parents[i]]));
  const nodes = [root, ...drafts];
  const said = emitted[step.path.length];
  if (said) {
    const own = { text: visible(said.text), kind: "said", depth: step.path.length + 1, children: [] };
    link(own, step.path.length ? drafts[step.path.at(-1)] : root);
    nodes.push(own);
  }
  placeRows(root, 0);
  placeColumns(nodes);
  return nodes;
}

const ORDER = { taken: 0, said: 1, left: 2 };

function placeRows(node, row) {
  node.row = row;
  const rank = (child) => ORDER[child.kind.split(" ")[0]];
  node.children.sort((a, b) => rank(a) - rank(b));
  let next = row;
  node.children.forEach((child, i) => {
    next = placeRows(child, i ? next + 1 : row);
  });
  return next;
}

function placeColumns(nodes) {
  const widths = [];
  for (const node of nodes) {
    node.text = node.text.length > MOST_CHARACTERS ? `${node.text.slice(0, MOST_CHARACTERS - 1)}…` : node.text;
    const letters = node.text.length + (node.score ? 5 : 0) + (node.kind.startsWith("left") ? 0 : 2);
    node.width = letters * CHARACTER + 20;
    widths[node.depth] = Math.max(widths[node.depth] ?? 0, node.width);
  }
  const starts = [0];
  widths.forEach((width, depth) => starts.push(starts[depth] + width + GAP));
  for (const node of nodes) node.x = starts[node.depth];
}

function chip(node) {
  const sign = { taken: "✓", said: "→" }[node.kind.split(" ")[0]];
  const parts = [...(sign ? [make("b", "", sign)] : []), make("code", "", node.text)];
  if (node.score) parts.push(make("small", "", node.score));
  const element = make("span", `node ${node.kind}`, parts, node.source ? { title: node.source } : {});
  element.style.width = `${node.width}px`;
  element.style.transform = `translate(${node.x}px, ${node.row * ROW + 3}px)`;
  return element;
}

function line(from, to) {
  const path = document.createElementNS(SVG, "path");
  const [x1, y1, x2, y2] = [from.x + from.width, (from.row + 0.5) * ROW, to.x, (to.row + 0.5) * ROW];
  const middle = x2 - GAP / 2;
  path.setAttribute("d", `M${x1} ${y1} H${middle - 8} C${middle} ${y1} ${middle - 4} ${y2} ${middle + 8} ${y2} H${x2}`);
  path.setAttribute("class", to.kind.startsWith("left") ? "left" : "taken");
  return path;
}
