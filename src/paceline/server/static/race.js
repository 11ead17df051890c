// Plain decoding beside Paceline: the bytes compared as they come, and both shown again at their true pace.

const encoder = new TextEncoder();

/** Counts the bytes in which two texts differ, each read once, however they arrive. */
export class Comparison {
  constructor() {
    this._bytes = [[], []];
    this._lengths = [0, 0]; // of the texts, in characters
    this._compared = 0;
    this._different = 0;
  }

  /** Take up a text that has grown. A character that is still half there has not been sent. */
  grow(side, text) {
    for (const byte of encoder.encode(text.slice(this._lengths[side]))) this._bytes[side].push(byte);
    this._lengths[side] = text.length;
    const [a, b] = this._bytes;
    for (const end = Math.min(a.length, b.length); this._compared < end; this._compared++) {
      this._different += a[this._compared] !== b[this._compared];
    }
  }

  get compared() {
    return this._compared;
  }

  /** So far; at the end of both a difference in length counts too. */
  differing(areDone) {
    const [a, b] = this._bytes;
    return this._different + (areDone ? Math.abs(a.length - b.length) : 0);
  }
}

/** Show runs again, each token when its step ended. Gives a function that ends it. */
export function replay(runs, show, done) {
  const started = performance.now();
  const longest = Math.max(...runs.map((run) => run.decodeMs));
  let frame = 0;
  const draw = () => {
    const now = Math.min(performance.now() - started, longest);
    runs.forEach((run, side) => show(side, numShown(run, now), Math.min(now, run.decodeMs)));
    if (now < longest) frame = requestAnimationFrame(draw);
    else done();
  };
  frame = requestAnimationFrame(draw);
  return () => {
    cancelAnimationFrame(frame);
    runs.forEach((run, side) => show(side, run.tokens.length, run.decodeMs));
    done();
  };
}

function numShown(run, now) {
  let at = 0;
  for (const step of run.steps) {
    at += step.ms;
    if (at > now) return step.first;
  }
  return run.tokens.length;
}
