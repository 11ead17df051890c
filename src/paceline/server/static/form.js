// What is asked: the prompt or the conversation, and how to decode.

import { byId, make } from "./dom.js";
import { Conversation } from "./chat.js";

const NUM_ALTERNATIVES = 5;

export class Form {
  constructor() {
    this.conversation = new Conversation(byId("messages"));
    byId("add-message").addEventListener("click", () => this.conversation.add(this.conversation.nextRole, "").focus());
    for (const input of document.querySelectorAll("input[name=mode]")) {
      input.addEventListener("change", () => this.showMode());
    }
    this.newSeed();
    this.showMode(); // a reload keeps what was chosen
  }

  /** Fit the form to the server. */
  fit(server) {
    byId("model").replaceChildren(...server.models.map((name) => make("option", "", name, { value: name })));
    byId("modes").hidden = !server.has_chat_template;
    byId("max-tokens").max = server.max_model_len;
    const chosen = byId("drafters");
    const names = server.drafters.filter((name) => ![...chosen.options].some((option) => option.value === name));
    chosen.append(...names.map((name) => make("option", "", `${name} alone`, { value: name })));
  }

  get isChat() {
    return !byId("modes").hidden && document.querySelector("input[name=mode]:checked").value === "chat";
  }

  get key() {
    return byId("key").value.trim();
  }

  /** Put in a text in place of the prompt. */
  fill(prompt) {
    const text = document.querySelector("input[name=mode][value=text]");
    text.checked = true;
    this.showMode();
    byId("prompt").value = prompt;
    byId("prompt").focus();
  }

  newSeed() {
    byId("seed").value = crypto.getRandomValues(new Uint32Array(1))[0];
  }

  get path() {
    return this.isChat ? "v1/chat/completions" : "v1/completions";
  }

  /** The body of the request. */
  body() {
    const number = (id) => Number(byId(id).value);
    const body = {
      model: byId("model").value || undefined,
      ...this._asked(),
      max_tokens: number("max-tokens"),
      temperature: number("temperature"),
      top_p: number("top-p"),
      seed: number("seed"),
    };
    if (byId("stop").value) body.stop = byId("stop").value;
    if (byId("drafters").value) body.speculation = { drafters: byId("drafters").value };
    return { ...body, stream: true, stream_options: { include_usage: true }, return_token_details: true };
  }

  /** Put an answer behind what was asked, where it can be edited and gone on with. */
  goOn(run) {
    let field = byId("prompt");
    if ("messages" in run.body) field = this.conversation.answer(run.text);
    else field.value = run.body.prompt + run.text;
    field.focus();
    field.setSelectionRange(field.value.length, field.value.length);
    field.scrollTop = field.scrollHeight;
  }

  _asked() {
    if (!this.isChat) return { prompt: byId("prompt").value };
    const { messages } = this.conversation;
    const goesOn = messages.at(-1)?.role === "assistant";
    return { messages, ...(goesOn ? { continue_final_message: true, add_generation_prompt: false } : {}) };
  }

  /** Show the prompt or the conversation. */
  showMode() {
    byId("text-part").hidden = this.isChat;
    byId("chat-part").hidden = !this.isChat;
  }
}

/** Ask for the likeliest tokens at each place too. */
export function withAlternatives(body) {
  return "messages" in body
    ? { ...body, logprobs: true, top_logprobs: NUM_ALTERNATIVES }
    : { ...body, logprobs: NUM_ALTERNATIVES };
}

/** One of two racers: nothing that takes time of its own, and a cache that nobody else has read into. */
export function asRacer(body, isPlain) {
  const salt = [...crypto.getRandomValues(new Uint8Array(12))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
  return { ...body, cache_salt: salt, ...(isPlain ? { speculation: { drafters: "none" } } : {}) };
}
