// Elements, always with text as text: nothing here or elsewhere on the page ever reads markup.

export const byId = (id) => document.getElementById(id);

/** A new element: its class names, its text or children, and attributes. */
export function make(tag, names = "", content = [], attributes = {}) {
  const element = document.createElement(tag);
  if (names) element.className = names;
  element.append(...(Array.isArray(content) ? content : [content]));
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  return element;
}

const SIGNS = { " ": "␣", "\n": "↵", "\t": "⇥" };

/** A text with its blanks and control characters shown. */
export function visible(text) {
  const shown = [...text].map((c) => SIGNS[c] ?? (c < " " ? String.fromCodePoint(0x2400 + c.codePointAt(0)) : c));
  return shown.join("") || "∅";
}

export function ms(value) {
  return value >= 1000 ? `${(value / 1000).toFixed(2)} s` : `${value.toFixed(value < 10 ? 2 : 1)} ms`;
}

export function seconds(value) {
  return `${(value / 1000).toFixed(2)} s`;
}

export function percent(share) {
  return `${(100 * share).toFixed(share > 0 && share < 0.1 ? 1 : 0)} %`;
}

/** Arrow keys, Home and End walk through the children of an element, of which one at a time has the tab stop. */
export function walkable(container, selector) {
  container.addEventListener("keydown", (event) => {
    const here = event.target.closest(selector);
    const moves = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity };
    if (!here || !(event.key in moves) || event.ctrlKey || event.metaKey || event.altKey) return;
    const all = [...container.querySelectorAll(selector)];
    const place = Math.min(all.length - 1, Math.max(0, all.indexOf(here) + moves[event.key]));
    event.preventDefault();
    all[place].focus();
  });
  container.addEventListener("focusin", (event) => {
    const here = event.target.closest(selector);
    if (!here) return;
    for (const other of container.querySelectorAll(`${selector}[tabindex="0"]`)) other.tabIndex = -1;
    here.tabIndex = 0;
  });
}
