// What all pages share: the services with their counts, and the changes as they come.
//
// One stream of changes says which services are to be read anew; a token that may not follow it reads the list by blocking
// queries instead, at most once in a second.

import { Refused, follow, get, part, pause, stream } from "./api.js";

const LIST = "/v1/rollcall/services";
const CHANGES_MAX = 500;
const AT_ONCE_MAX = 40;
const GATHER_MILLIS = 120;

class Store extends EventTarget {
  services = new Map();
  changes = [];
  // "starting", "live", "polling" (no single changes), "lost", "refused"
  state = "starting";
  error = null;
  #abort = new AbortController();
  #dirty = new Set();
  #all = false;
  #timer = 0;

  // Begins anew, with the token that there is now.
  start() {
    this.#abort.abort();
    this.#abort = new AbortController();
    [this.services, this.changes] = [new Map(), []];
    this.#say("starting");
    this.#run(this.#abort.signal);
  }

  async #run(signal) {
    let wait = 500;
    while (!signal.aborted) {
      try {
        const index = await this.#load("", signal);
        wait = 500;
        await this.#stream(index, signal);
      } catch (error) {
        if (signal.aborted) return;
        if (error.stream && [403, 404, 429].includes(error.status)) return this.#poll(signal);
        if (error.status === 403) return this.#say("refused", error);
        this.#say("lost", error);
      }
      await pause(wait, signal);
      wait = Math.min(wait * 2, 8000);
    }
  }

  async #stream(index, signal) {
    let begun = false;
    try {
      for await (const [kind, data] of stream(`/v1/rollcall/events?index=${index}`, signal)) {
        begun = true;
        if (this.state !== "live") this.#say("live");
        if (kind === "reset") this.#touch(null, signal);
        else if (data && kind !== "begin") this.#note(kind, data, signal);
      }
    } catch (error) {
      if (error instanceof Refused) error.stream = !begun;
      throw error;
    }
    throw new Refused(0, "the stream of changes ended");
  }

  #note(kind, data, signal) {
    this.changes.unshift({ kind, at: new Date().toISOString(), ...data });
    this.changes.length = Math.min(this.changes.length, CHANGES_MAX);
    this.dispatchEvent(new Event("changes"));
    // Of a node: who knows which services are on it.
    this.#touch(data.Service ?? null, signal);
  }

  // Reads a service anew, or all; those that change together are read together.
  #touch(service, signal) {
    if (service === null) this.#all = true;
    else this.#dirty.add(service);
    this.#timer ||= setTimeout(async () => {
      const names = [...this.#dirty];
      const all = this.#all || names.length > AT_ONCE_MAX;
      [this.#timer, this.#all] = [0, false];
      this.#dirty.clear();
      try {
        await this.#load(all ? "" : names, signal);
      } catch (error) {
        if (!signal.aborted) this.#say("lost", error);
      }
    }, GATHER_MILLIS);
  }

  async #load(names, signal) {
    const query = names === "" ? "" : `?${names.map((name) => `service=${part(name)}`).join("&")}`;
    const { value, index } = await get(LIST + query, signal);
    this.#take(value, names);
    return index;
  }

  #take(rows, names) {
    const folded = (name) => name.toLowerCase();
    if (names === "") this.services = new Map(rows.map((row) => [folded(row.Name), row]));
    else {
      for (const name of names) this.services.delete(folded(name));
      for (const row of rows) this.services.set(folded(row.Name), row);
    }
    this.dispatchEvent(new Event("services"));
  }

  async #poll(signal) {
    const seen = (rows) => {
      if (this.state !== "polling") this.#say("polling");
      this.#take(rows, "");
    };
    await follow(LIST, seen, (error) => this.#say(error.status === 403 ? "refused" : "lost", error), signal, { rest: 1000 });
  }

  #say(state, error = null) {
    [this.state, this.error] = [state, error];
    this.dispatchEvent(new Event("state"));
  }
}

export const store = new Store();
