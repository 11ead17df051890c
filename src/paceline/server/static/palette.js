// Which colour, and which line for those who do not see colours apart, each drafter has. The same all over the page.

import { OWN } from "./run.js";

const NUM_COLOURS = 7; // Okabe and Ito's, in figures.css as .d0 to .d6

const places = new Map();

/** The class of a drafter; drafters are numbered as they are met. */
export function classOf(source) {
  if (source === OWN) return "own";
  if (!places.has(source)) places.set(source, places.size);
  return `d${places.get(source) % NUM_COLOURS}`;
}

/** What people read in place of a source's name. */
export function nameOf(source) {
  return source === OWN ? "the model itself" : source;
}
