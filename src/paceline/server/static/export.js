// The request as commands that anyone can run, and all that is known of the answer as JSON. Never the API key.

const OURS = ["speculation"]; // fields that OpenAI's client does not know
const OF_THE_PAGE = ["stream", "stream_options", "logprobs", "top_logprobs", "return_token_details", "cache_salt"];

/** The request without what only this page wants. */
export function essential(body) {
  return Object.fromEntries(Object.entries(body).filter(([name]) => !OF_THE_PAGE.includes(name)));
}

export function asCurl(run, hasKey) {
  const lines = [`curl -s ${quoted(new URL(run.path, document.baseURI).href)}`];
  lines.push("-H 'Content-Type: application/json'");
  if (hasKey) lines.push('-H "Authorization: Bearer $PACELINE_API_KEY"');
  lines.push(`-d ${quoted(JSON.stringify(essential(run.body), null, 2))}`);
  return `${lines.join(" \\\n  ")}\n`;
}

function quoted(text) {
  return `'${text.replaceAll("'", "'\\''")}'`;
}

export function asPython(run, hasKey) {
  const isChat = "messages" in run.body;
  const given = Object.entries(essential(run.body));
  const own = given.filter(([name]) => OURS.includes(name));
  const lines = given.filter(([name]) => !OURS.includes(name)).map(([name, value]) => `    ${name}=${python(value)},`);
  if (own.length) lines.push(`    extra_body=${python(Object.fromEntries(own))},`);
  const key = hasKey ? 'os.environ["PACELINE_API_KEY"]' : '"none"';
  return [
    ...(hasKey ? ["import os", ""] : []),
    "from openai import OpenAI",
    "",
    `client = OpenAI(base_url=${python(new URL("v1", document.baseURI).href)}, api_key=${key})`,
    `answer = client.${isChat ? "chat.completions" : "completions"}.create(`,
    ...lines,
    ")",
    `print(answer.choices[0].${isChat ? "message.content" : "text"}, end="")`,
    "",
  ].join("\n");
}

/** A value of JSON as Python writes it; JSON's strings are Python's too. */
function python(value) {
  if (value === null) return "None";
  if (typeof value === "boolean") return value ? "True" : "False";
  if (Array.isArray(value)) return `[${value.map(python).join(", ")}]`;
  if (typeof value === "object") {
    const entries = Object.entries(value).map(([name, part]) => `${JSON.stringify(name)}: ${python(part)}`);
    return `{${entries.join(", ")}}`;
  }
  return JSON.stringify(value);
}

/** Everything: what was asked and what came, of one run or of both racers. */
export function asJson(runs) {
  const shown = runs.map((run) => ({
    plain: run.isPlain,
    endpoint: `/${run.path}`,
    request: essential(run.body),
    text: run.text,
    finish_reason: run.finishReason,
    usage: run.usage,
    decode_ms: run.decodeMs,
    prompt: run.prompt,
    tokens: run.tokens,
    steps: run.steps.map(({ depths, first, numAccepted, ms, ...step }) => step),
    pacing: run.pacing,
  }));
  return `${JSON.stringify({ runs: shown }, null, 2)}\n`;
}
