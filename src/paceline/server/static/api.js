// Requests to the server that this page came from, and to no other.

export class Problem extends Error {
  constructor(message, status) {
    super(message);
    this.status = status;
  }
}

/** What the page needs to know of the server. */
export async function about(key) {
  return (await asked("playground", { headers: headers(key) })).json();
}

/** The chunks of a streamed answer, as they come, until `[DONE]`. */
export async function* streamed(path, body, key, signal) {
  const answer = await asked(path, {
    method: "POST",
    headers: { ...headers(key), "content-type": "application/json" },
    body: JSON.stringify(body),
    signal,
  });
  for await (const data of events(answer.body)) {
    if (data === "[DONE]") return;
    const chunk = JSON.parse(data);
    if (chunk.error) throw new Problem(chunk.error.message, 200);
    yield chunk;
  }
  throw new Problem("the answer broke off", 200);
}

async function asked(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem("the server does not answer", 0);
  }
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => null);
  throw new Problem(told?.error?.message ?? `the server answered ${answer.status}`, answer.status);
}

function headers(key) {
  return key ? { authorization: `Bearer ${key}` } : {};
}

async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        if (part.startsWith("data: ")) yield part.slice(6);
      }
    }
  } finally {
    reader.cancel().catch(() => undefined);
  }
}
