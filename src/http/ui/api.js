// The API of this server, and the token that goes with every request.

const KEY = "rollcall.token";
let token = sessionStorage.getItem(KEY) ?? "";

export const hasToken = () => token !== "";

export function setToken(text) {
  token = text.trim();
  if (token) sessionStorage.setItem(KEY, token);
  else sessionStorage.removeItem(KEY);
}

// What the server does not do; status 0 where it does not answer.
export class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }

  // For people.
  get told() {
    if (this.status === 0) return "The server does not answer.";
    if (this.message === "ACL not found") return "The server does not know this token. Enter another one, or forget it.";
    if (this.status === 403 && !hasToken()) return `This needs a token: ${this.message}`;
    if (this.status === 403) return `This token is not enough: ${this.message}`;
    return this.message;
  }
}

async function ask(path, { method = "GET", body, signal } = {}) {
  const headers = token ? { "X-Consul-Token": token } : {};
  if (body !== undefined) headers["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(path, { method, headers, body, signal, credentials: "omit", cache: "no-store", redirect: "error" });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, String(error));
  }
  if (!answer.ok) throw new Refused(answer.status, (await answer.text()).trim() || answer.statusText);
  return answer;
}

// A JSON answer, its text, and its index.
export async function get(path, signal) {
  const answer = await ask(path, { signal });
  try {
    const text = await answer.text();
    return { value: JSON.parse(text), text, index: Number(answer.headers.get("X-Consul-Index") ?? 0) };
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new Refused(0, String(error));
  }
}

// A change; what the server says of it, if that is JSON.
export async function send(method, path, value, signal) {
  const answer = await ask(path, { method, body: value === undefined ? undefined : JSON.stringify(value), signal });
  const text = await answer.text();
  return text ? JSON.parse(text) : null;
}

export const part = encodeURIComponent;

export const pause = (millis, signal) => new Promise((done) => {
  const timer = setTimeout(done, millis);
  signal?.addEventListener("abort", () => { clearTimeout(timer); done(); }, { once: true });
});

// Reads a path now and at every change, by blocking queries; `seen` gets what is new. `failed` is told what went wrong; what the
// server refuses is not asked for again. `patience` says of a value for how many seconds a query may wait: what a check says
// moves no index as long as its status stays.
export async function follow(path, seen, failed, signal, { rest = 100, patience = () => 60 } = {}) {
  let [index, wait, shown, seconds] = [0, 500, null, 0];
  while (!signal.aborted) {
    try {
      const joint = path.includes("?") ? "&" : "?";
      const answer = await get(index ? `${path}${joint}index=${index}&wait=${seconds}s` : path, signal);
      if (signal.aborted) return;
      const same = answer.index === index && answer.text === shown;
      index = answer.index < index ? 0 : answer.index;
      [wait, shown, seconds] = [500, answer.text, patience(answer.value)];
      if (!same) seen(answer.value);
      await pause(rest, signal);
    } catch (error) {
      if (signal.aborted) return;
      failed(error);
      if (!(error instanceof Refused) || (error.status >= 400 && error.status < 429)) return;
      index = 0;
      await pause(wait, signal);
      wait = Math.min(wait * 2, 8000);
    }
  }
}

// A stream of server-sent events: [type, data, id] each. EventSource sends no headers, and so no token.
export async function* stream(path, signal) {
  const answer = await ask(path, { signal });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let text = "";
  while (true) {
    const { value, done } = await reader.read();
    if (done) return;
    text += value;
    const messages = text.split("\n\n");
    text = messages.pop();
    for (const message of messages) {
      const fields = { event: "", id: "", data: "" };
      for (const line of message.split("\n")) {
        const [, name, rest] = /^(\w+): ?(.*)$/.exec(line) ?? [];
        if (name) fields[name] = rest;
      }
      yield [fields.event, fields.data ? JSON.parse(fields.data) : null, Number(fields.id) || 0];
    }
  }
}
