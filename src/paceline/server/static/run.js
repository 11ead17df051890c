// One answer as it comes: its tokens, its steps, and what follows from them. Times are the server's, in milliseconds.

export const OWN = "target"; // the source of the model's own tokens

export class Run {
  constructor(path, body, isPlain) {
    this.path = path;
    this.body = body;
    this.isPlain = isPlain;
    this.tokens = [];
    this.steps = [];
    this.text = "";
    this.prompt = null;
    this.pacing = null;
    this.usage = null;
    this.finishReason = null;
    this.decodeMs = 0;
    this.firstMs = null; // from sending to the first token, by this page's clock
    this.numDrafted = 0;
    this.numAccepted = 0;
    this.slowest = 0; // of the steps, per emitted token
    this.drafted = new Map(); // by drafter: tokens drafted
    this.accepted = new Map(); // by drafter: of them, tokens of the answer
    this._sent = 0;
  }

  /** It is sent now. */
  begin() {
    this._sent = performance.now();
  }

  /** Take up a chunk of the stream; returns the tokens that are new. */
  add(chunk) {
    this.usage = chunk.usage ?? this.usage;
    const choice = chunk.choices[0];
    if (!choice) return [];
    const tokens = choice.token_details ?? [];
    if (tokens.length && this.firstMs === null) this.firstMs = performance.now() - this._sent;
    this.prompt = choice.prompt_details ?? this.prompt;
    this.pacing = choice.pacing ?? this.pacing;
    this.finishReason = choice.finish_reason ?? this.finishReason;
    this.text += choice.text ?? choice.delta?.content ?? "";
    for (const step of choice.steps ?? []) this._addStep(step);
    for (const token of tokens) {
      this.tokens.push(token);
      if (token.source !== OWN) count(this.accepted, token.source);
    }
    return tokens;
  }

  get isFinished() {
    return this.finishReason !== null;
  }

  get tokensPerSecond() {
    return this.decodeMs ? (this._numInSteps / this.decodeMs) * 1e3 : 0;
  }

  get tokensPerStep() {
    return this.steps.length ? this._numInSteps / this.steps.length : 0;
  }

  get acceptance() {
    return this.numDrafted ? this.numAccepted / this.numDrafted : 0;
  }

  /** What it took up to and with a token, shared evenly in its step. */
  msOf(token) {
    const step = this.steps[token.step];
    return step ? step.ms / Math.max(step.num_emitted, 1) : 0;
  }

  tokensOf(index) {
    const { first, num_emitted } = this.steps[index];
    return this.tokens.slice(first, first + num_emitted);
  }

  /** By position in a draft, from 1: how many were proposed there, and how many accepted. */
  positions() {
    const found = [];
    for (const step of this.steps) {
      const depth = Math.max(0, ...step.depths);
      for (let i = 0; i < depth; i++) {
        found[i] ??= { proposed: 0, accepted: 0 };
        found[i].proposed += 1;
        found[i].accepted += step.numAccepted > i;
      }
    }
    return found;
  }

  /** Steps by the number of tokens that they emitted, from 1 on. */
  lengths() {
    const found = [];
    for (const step of this.steps) {
      for (let i = found.length; i < step.num_emitted; i++) found.push(0);
      if (step.num_emitted) found[step.num_emitted - 1] += 1;
    }
    return found;
  }

  _addStep(step) {
    const depths = [];
    for (const parent of step.parents) depths.push(parent < 0 ? 1 : depths[parent] + 1);
    step.depths = depths;
    step.ms = step.draft_ms + step.forward_ms + step.other_ms;
    step.first = this._numInSteps;
    step.numAccepted = Math.min(step.path.length, step.num_emitted);
    for (const source of step.sources) count(this.drafted, source);
    this.steps.push(step);
    this.decodeMs += step.ms;
    this.numDrafted += step.tokens.length;
    this.numAccepted += step.numAccepted;
    this.slowest = Math.max(this.slowest, step.ms / Math.max(step.num_emitted, 1));
  }

  get _numInSteps() {
    const last = this.steps.at(-1);
    return last ? last.first + last.num_emitted : 0;
  }
}

function count(counts, name) {
  counts.set(name, (counts.get(name) ?? 0) + 1);
}
