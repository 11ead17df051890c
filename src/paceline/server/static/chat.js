// A conversation that is edited like a list: any turn can be changed, taken out, and gone on from.

import { make } from "./dom.js";

const ROLES = ["system", "user", "assistant"];

export class Conversation {
  constructor(list) {
    this._list = list;
    this.add("user", "Tell me a story about a fox.");
  }

  /** One more turn; gives its text field. */
  add(role, content) {
    const roles = ROLES.map((name) => make("option", "", name, { value: name }));
    const chosen = make("select", "", roles, { "aria-label": "Role" });
    chosen.value = role;
    const field = make("textarea", "", [], { rows: 2, spellcheck: "false", "aria-label": "Message" });
    field.value = content;
    const away = make("button", "quiet", "Remove", { type: "button" });
    const item = make("li", "", [make("div", "head", [chosen, away]), field]);
    away.addEventListener("click", () => {
      const next = item.nextElementSibling ?? item.previousElementSibling;
      item.remove();
      next?.querySelector("textarea").focus();
    });
    this._list.append(item);
    return field;
  }

  /** The next turn's role, by whose turn the last was. */
  get nextRole() {
    return this.messages.at(-1)?.role === "user" ? "assistant" : "user";
  }

  get messages() {
    return [...this._list.children].map((item) => ({
      role: item.querySelector("select").value,
      content: item.querySelector("textarea").value,
    }));
  }

  /** Take in an answer: a new turn, or the rest of the assistant's that was gone on with. */
  answer(text) {
    const last = this._list.lastElementChild;
    if (this.messages.at(-1)?.role === "assistant") {
      last.querySelector("textarea").value += text;
      return last.querySelector("textarea");
    }
    this.add("assistant", text);
    return this.add("user", "");
  }
}
