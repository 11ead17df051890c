// Figures beside the text: the legend, the counts, and two small bar charts that are tables to a screen reader.

import { make, ms, percent, seconds } from "./dom.js";
import { classOf, nameOf } from "./palette.js";
import { OWN } from "./run.js";

const MOST_ROWS = 12;

/** Who said how much of the answer, how often each drafter was right, and what that saved: elements. */
export function legend(run) {
  const own = run.tokens.filter((token) => token.source === OWN).length;
  const isPaced = Object.keys(run.pacing?.accounts ?? {}).length > 0; // who counts no savings has no figure of them
  const names = [...run.drafted.keys()];
  const rows = names.map((name) => {
    const drafted = run.drafted.get(name) ?? 0;
    const accepted = run.accepted.get(name) ?? 0;
    const saved = isPaced ? run.pacing.drafters[name]?.saved_seconds : undefined;
    return row(name, [
      percent(accepted / (run.tokens.length || 1)),
      `${accepted} of ${drafted}`,
      percent(accepted / drafted),
      saved === undefined ? "–" : `${saved < 0 ? "−" : ""}${ms(Math.abs(saved * 1e3))}`,
    ]);
  });
  rows.push(row(OWN, [percent(own / (run.tokens.length || 1)), "", "", ""]));
  const heads = ["", "of the text", "accepted", "acceptance", "time saved"].map((name) => make("th", "", name, { scope: "col" }));
  const table = make("table", "", [make("thead", "", make("tr", "", heads)), make("tbody", "", rows)]);
  const silent = Object.entries(run.pacing?.drafters ?? {})
    .filter(([name, drafter]) => drafter.num_proposals && !run.drafted.has(name))
    .map(([name]) => name);
  return [table, ...(silent.length ? [make("p", "soft small", `Asked, and given no rows: ${silent.join(", ")}.`)] : [])];
}

function row(source, cells) {
  const name = make("th", "", [make("span", `sample ${classOf(source)}`, nameOf(source))], { scope: "row" });
  return make("tr", "", [name, ...cells.map((cell) => make("td", "", cell))]);
}

/** The counts of a run, as pairs. */
export function figures(run) {
  const pairs = [
    ["tokens", String(run.tokens.length)],
    ["tokens/s", run.tokensPerSecond.toFixed(0)],
    ["tokens a step", run.tokensPerStep.toFixed(2)],
    ["acceptance", run.numDrafted ? percent(run.acceptance) : "–"],
    ["decoding", seconds(run.decodeMs)],
    ["first token", run.firstMs === null ? "–" : ms(run.firstMs)],
    ["seed", String(run.body.seed)],
    ["ended by", run.finishReason ?? "…"],
  ];
  return pairs.map(([name, value]) => make("div", "", [make("dt", "", name), make("dd", "", value)]));
}

export function positionsChart(run) {
  const rows = binned(run.positions()).map(({ name, parts }) => {
    const proposed = sum(parts.map((at) => at.proposed));
    const share = sum(parts.map((at) => at.accepted)) / proposed;
    return { name, share, words: `${percent(share)} of ${proposed}` };
  });
  return chart("Accepted, by position in the draft", "position", rows, "Nothing was drafted.");
}

export function lengthsChart(run) {
  const counts = binned(run.lengths()).map(({ name, parts }) => ({ name, count: sum(parts) }));
  const most = Math.max(1, ...counts.map(({ count }) => count));
  const rows = counts.map(({ name, count }) => ({ name, share: count / most, words: String(count) }));
  return chart("Steps, by tokens emitted", "tokens", rows, "There were no steps.");
}

/** Values for 1, 2, and so on, several to a row where they are many: the numbers of each row, and its values. */
function binned(values) {
  const width = Math.ceil(values.length / MOST_ROWS);
  const rows = [];
  for (let i = 0; i < values.length; i += width) {
    const parts = values.slice(i, i + width);
    rows.push({ name: parts.length > 1 ? `${i + 1}–${i + parts.length}` : String(i + 1), parts });
  }
  return rows;
}

function sum(values) {
  return values.reduce((a, b) => a + b, 0);
}

function chart(title, head, rows, absent) {
  const heading = make("caption", "", title);
  if (!rows.length) return make("div", "", [make("h3", "", title), make("p", "soft small", absent)]);
  const shown = rows.map(({ name, share, words }) => {
    const bar = make("i");
    bar.style.width = `${(100 * share).toFixed(1)}%`;
    const cells = [make("td", "", make("span", "track", bar)), make("td", "number", words)];
    return make("tr", "", [make("th", "", name, { scope: "row" }), ...cells]);
  });
  const heads = [make("th", "", head, { scope: "col" }), make("th"), make("th")];
  return make("table", "bars", [heading, make("thead", "unseen", make("tr", "", heads)), make("tbody", "", shown)]);
}
