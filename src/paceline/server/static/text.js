// The tokens of an answer, coloured, and what hovering over one says.

import { make, ms, percent, visible, walkable } from "./dom.js";
import { classOf, nameOf } from "./palette.js";

const ENTROPY_SCALE = 2.5; // nats at which the colour has 63 % of its strength, as in the report

const levels = {
  probability: (token) => 1 - Math.exp(token.logprob),
  entropy: (token) => (token.entropy === null ? 0 : 1 - Math.exp(-token.entropy / ENTROPY_SCALE)),
  time: (token, run) => run.msOf(token) / (run.slowest || 1),
};

export class TextView {
  constructor(container, tip, chooseStep) {
    this._container = container;
    this._tip = tip;
    this._run = null;
    this._measure = "drafter";
    walkable(container, ".t");
    const at = (event) => event.target.closest?.(".t");
    container.addEventListener("pointerover", (event) => at(event) && this._show(at(event)));
    container.addEventListener("pointerleave", () => tip.hide());
    container.addEventListener("focusin", (event) => at(event) && this._show(at(event)));
    container.addEventListener("focusout", () => tip.hide());
    container.addEventListener("click", (event) => at(event) && chooseStep(this._run, this._tokenOf(at(event)).step));
    container.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && at(event)) chooseStep(this._run, this._tokenOf(at(event)).step);
    });
  }

  clear() {
    this._run = null;
    this._container.replaceChildren();
  }

  begin(run) {
    this._run = run;
    this._container.replaceChildren();
    this._container.setAttribute("aria-busy", "true");
  }

  add(tokens) {
    const first = this._container.childElementCount;
    this._container.append(...tokens.map((token, i) => this._made(token, first + i)));
  }

  end() {
    this._container.setAttribute("aria-busy", "false");
    this.colourBy(this._measure);
  }

  colourBy(measure) {
    this._measure = measure;
    for (const element of this._container.children) this._colour(element, this._tokenOf(element));
  }

  /** Show the first so many tokens alone. */
  reveal(count) {
    [...this._container.children].forEach((element, i) => element.classList.toggle("later", i >= count));
  }

  mark(step) {
    for (const element of this._container.children) {
      element.classList.toggle("marked", this._tokenOf(element).step === step);
    }
  }

  _made(token, index) {
    const element = make("span", "t", token.text, { "data-i": index, tabindex: index ? -1 : 0 });
    this._colour(element, token);
    return element;
  }

  _tokenOf(element) {
    return this._run.tokens[Number(element.dataset.i)];
  }

  _colour(element, token) {
    const level = levels[this._measure];
    const names = ["t", level ? "graded" : classOf(token.source)];
    if (!token.text) names.push("blank");
    for (const kept of ["later", "marked"]) if (element.classList.contains(kept)) names.push(kept);
    element.className = names.join(" ");
    if (level) element.style.setProperty("--level", level(token, this._run).toFixed(3));
  }

  _show(element) {
    this._tip.show(element, described(this._tokenOf(element), this._run));
  }
}

function described(token, run) {
  const facts = [
    ["from", nameOf(token.source)],
    ["probability", Math.exp(token.logprob).toPrecision(3)],
    ["entropy", token.entropy === null ? "–" : `${token.entropy.toFixed(2)} nats`],
    ["margin", token.margin === null ? "the only choice" : token.margin.toFixed(2)],
    ["step", run.steps[token.step] ? `${token.step + 1}, ${ms(run.steps[token.step].ms)}` : token.step + 1],
  ];
  const rows = facts.flatMap(([name, value]) => [make("dt", "", name), make("dd", "", String(value))]);
  const parts = [make("p", "word", visible(token.text)), make("dl", "", rows)];
  if (token.top.length) parts.push(make("div", "top", token.top.flatMap((one) => alternative(one, token))));
  else parts.push(make("p", "soft small", "A race asks for no alternatives: finding them takes time."));
  return parts;
}

function alternative(one, token) {
  const share = Math.exp(one.logprob);
  const bar = make("i");
  bar.style.width = percent(share).replace(" ", "");
  const name = make("code", one.id === token.id ? "chosen" : "", visible(one.text));
  return [name, make("span", "track", bar), make("span", "number", percent(share))];
}

/** The one tooltip: beside its token, never over it, and within the window. */
export class Tip {
  constructor(element) {
    this._element = element;
    this._owner = null;
    addEventListener("scroll", () => this.hide(), { passive: true });
    addEventListener("keydown", (event) => event.key === "Escape" && this.hide());
  }

  show(owner, content) {
    this.hide();
    const tip = this._element;
    tip.replaceChildren(...content);
    tip.hidden = false;
    this._owner = owner;
    owner.setAttribute("aria-describedby", tip.id);
    const at = owner.getClientRects()[0] ?? owner.getBoundingClientRect();
    const left = Math.min(at.left, innerWidth - tip.offsetWidth - 8);
    const below = at.bottom + 6;
    const fits = below + tip.offsetHeight < innerHeight;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${fits ? below : Math.max(8, at.top - tip.offsetHeight - 6)}px`;
  }

  hide() {
    this._element.hidden = true;
    this._owner?.removeAttribute("aria-describedby");
    this._owner = null;
  }
}
