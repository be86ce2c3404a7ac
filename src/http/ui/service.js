// One service, and one node: what is there, how it stands, and what may be done to it.

import { Refused, follow, get, part, send } from "./api.js";
import { facts, h, plural, replace, status, table, tags, worst } from "./dom.js";
import { history } from "./history.js";
import { route } from "./route.js";

const SHOWN = 100;
// Of services with more instances, the page "Ask DNS" says it.
const EXPLAINED_MAX = 1000;
const AGAIN_MILLIS = 2000;
// Of whoever has something that does not pass, outputs are read anew so often.
const OUTPUT_SECONDS = 5;
const patience = (checks) => (checks.some((check) => check.Status !== "passing") ? OUTPUT_SECONDS : 60);
const STYLES = { passing: "good", warning: "warns", critical: "bad", maintenance: "away" };

// Maintenance is shown as a check by Consul's API.
const isWord = (check) => check.CheckID.startsWith("_service_maintenance:") || check.CheckID === "_node_maintenance";
const standing = (checks) => (checks.some(isWord) ? "maintenance" : worst(checks.map((check) => check.Status)));
const pairs = (map) => Object.entries(map ?? {}).map(([key, value]) => h("div", {}, `${key} = ${value}`));

// What a check says of itself; a TTL check says nothing before its program does.
function output(check) {
  if (isWord(check)) return check.Notes;
  if (!check.Output && check.Type === "ttl" && check.Status !== "passing") return `waits for PUT /v1/agent/check/pass/${check.CheckID}`;
  return check.Output || "no output yet";
}

function checkRows(checks) {
  const rows = checks.map((check) => [
    h("span", {}, check.Name || check.CheckID, h("div", { class: "soft" }, check.Type ? `${check.CheckID} (${check.Type})` : check.CheckID)),
    status(isWord(check) ? "maintenance" : check.Status),
    h("pre", {}, output(check)),
  ]);
  return rows.length ? table(["Check", "Status", "Output"], rows) : h("p", { class: "soft" }, "No checks: it counts as passing.");
}

// Asks for a reason; null where it is called off.
function askReason(what) {
  const dialog = document.getElementById("reason-dialog");
  document.getElementById("reason-what").textContent = what;
  const text = document.getElementById("reason-text");
  [text.value, dialog.returnValue] = ["", "cancel"];
  dialog.showModal();
  text.focus();
  return new Promise((done) => {
    dialog.addEventListener("close", () => done(dialog.returnValue === "use" ? text.value : null), { once: true });
  });
}

// Begins or ends maintenance by a click.
function maintenance(path, node, on, what, failed) {
  const change = async () => {
    const reason = on ? "" : await askReason(what);
    if (reason === null) return;
    try {
      await send("PUT", `${path}?enable=${!on}&reason=${part(reason)}&node=${part(node)}`);
      failed(null);
    } catch (error) {
      failed(error);
    }
  };
  return h("button", { type: "button", "data-key": `${node} ${path}`, onclick: change }, on ? "End maintenance" : "Begin maintenance…");
}

// Takes an instance out of answers by a click, and says when it is safe to stop it. What is said stays when the page is shown anew.
function drain(own, node, said, failed) {
  const key = `${node} ${own.ID}`;
  const line = h("p", { class: "soft", role: "status" }, said.get(key) ?? "");
  const say = (text) => {
    said.set(key, text);
    for (const shown of document.querySelectorAll("[data-drain]")) if (shown.dataset.drain === key) shown.textContent = text;
  };
  line.dataset.drain = key;
  const begin = async () => {
    const path = `/v1/rollcall/drain/${part(own.ID)}?node=${part(node)}`;
    try {
      failed(null);
      const first = await send("PUT", path);
      say(first.LeftAt ? `DNS has left it; caches may have it for ${first.Remaining}` : "DNS has not left it yet");
      const last = first.Safe ? first : await send("PUT", `${path}&wait=24h`);
      say(last.Safe ? `Safe to stop: no answer with it lives. Not proved: ${last.NotProved.join("; ")}.` : "The server ended before it was safe to stop it.");
    } catch (error) {
      say("");
      failed(error);
    }
  };
  return [h("button", { type: "button", "data-key": `drain ${key}`, onclick: begin }, "Drain"), line];
}

const key = (node, id) => `${node} ${id}`.toLowerCase();

// What DNS does with each instance, and why: by its key.
async function explained(name, signal) {
  const { value } = await get(`/v1/rollcall/explain?name=${part(name)}&type=SRV`, signal);
  return new Map((value.Instances ?? []).map((row) => [key(row.Node, row.ID), row]));
}

function instance(entry, why, writable, said, failed) {
  const { Service: own, Node: node, Checks: checks } = entry;
  const stands = standing(checks);
  const on = checks.some((check) => check.CheckID === `_service_maintenance:${own.ID}`);
  const host = own.Address || node.Address;
  const action = writable && maintenance(`/v1/agent/service/maintenance/${part(own.ID)}`, node.Node, on, `${own.ID} on ${node.Node} leaves DNS until it is ended.`, failed);
  const [drains, line] = writable ? drain(own, node.Node, said, failed) : ["", ""];
  return h("section", { class: `card ${STYLES[stands]}`, "aria-label": own.ID, "data-instance": own.ID },
    h("div", { class: "top" }, h("strong", {}, own.ID), status(stands), h("span", {}, `${host.includes(":") ? `[${host}]` : host}:${own.Port}`),
      h("a", { href: `#/node/${part(node.Node)}` }, node.Node), tags(own.Tags), action, drains),
    line,
    facts([["DNS", why && `${why.In ? `in, weight ${why.Weight}` : "out"}: ${why.Reason}`], ["Weights", `${own.Weights.Passing} passing, ${own.Weights.Warning} warning`], ["Meta", pairs(own.Meta)]]),
    checkRows(checks));
}

export function service(main, signal, failed, name) {
  let [shown, entries, row, why, timer] = [SHOWN, null, {}, new Map(), 0];
  const body = h("div", { class: "bar" });
  const states = h("div", { role: "status" });
  const cards = h("div", { class: "cards" });
  cards.style.display = "grid";
  cards.style.gap = ".5rem";
  const said = new Map();
  const past = history(name, signal);
  // A route changes what DNS does with an instance, and nothing that Consul's API shows of it.
  const routed = route(name, signal, failed, () => { past.read(); again(); });
  const show = () => {
    const state = (count, text) => count > 0 && h("p", { class: "state" }, text);
    replace(states,
      state(row.Guarded, `DNS goes on to give ${plural(row.Guarded ?? 0, "critical instance")}: too many failed at once ([guard]).`),
      state(row.Out, `${plural(row.Out ?? 0, "instance")} out of DNS: too many requests failed, as callers report ([breaker]).`),
      state(row.OnTrial, `${plural(row.OnTrial ?? 0, "instance")} on trial with the lowest weight ([breaker]).`));
    const counts = {};
    for (const entry of entries) counts[standing(entry.Checks)] = (counts[standing(entry.Checks)] ?? 0) + 1;
    replace(body, plural(entries.length, "instance"),
      ["passing", "warning", "critical", "maintenance"].filter((word) => counts[word]).map((word) => [status(word), ` ${counts[word]}`]).flat());
    if (!entries.length) return replace(cards, h("p", { class: "empty" }, "No instance of this service is registered that may be seen."));
    const order = (entry) => ["critical", "maintenance", "warning", "passing"].indexOf(standing(entry.Checks));
    const sorted = [...entries].sort((a, b) => order(a) - order(b));
    const more = sorted.length > shown
      && h("button", { type: "button", onclick: () => { shown *= 4; show(); } }, `Show more of ${plural(sorted.length, "instance")}`);
    replace(cards, ...sorted.slice(0, shown).map((entry) => instance(entry, why.get(key(entry.Node.Node, entry.Service.ID)), row.Writable, said, failed)), more || "");
  };
  main.replaceChildren(
    h("div", { class: "bar" }, h("h1", {}, name), h("a", { href: `#/ask?name=${part(name)}&type=SRV` }, "Why does DNS answer what it answers?")),
    body, states, cards, routed.element, past.element);
  const read = async () => {
    clearTimeout(timer);
    const [{ value: rows }, reasons] = await Promise.all([
      get(`/v1/rollcall/services?service=${part(name)}`, signal).catch(() => ({ value: [] })),
      entries.length <= EXPLAINED_MAX ? explained(name, signal).catch(() => new Map()) : new Map(),
    ]);
    [row, why] = [rows[0] ?? {}, reasons];
    // A slow start goes on without a change that would be waited for.
    if ([...why.values()].some((one) => one.Reason.includes("[slow_start]"))) timer = setTimeout(again, AGAIN_MILLIS);
  };
  const again = () => entries && !signal.aborted && read().then(show);
  const seen = async (value) => {
    entries = value;
    await read();
    if (signal.aborted) return;
    routed.may(row.Writable ?? false);
    show();
    past.read();
    routed.read();
  };
  const patient = (all) => (all.length <= EXPLAINED_MAX ? patience(all.flatMap((entry) => entry.Checks)) : 60);
  follow(`/v1/health/service/${part(name)}`, seen, failed, signal, { patience: patient });
}

export function node(main, signal, failed, name) {
  const body = h("div");
  body.style.display = "grid";
  body.style.gap = ".5rem";
  main.replaceChildren(h("h1", {}, name), body);
  const seen = async (checks) => {
    try {
      const [{ value: all }, { value: rows }] = await Promise.all([
        get(`/v1/catalog/node-services/${part(name)}`, signal), get(`/v1/rollcall/nodes?node=${part(name)}`, signal)]);
      if (signal.aborted) return;
      if (!all?.Node) return replace(body, h("p", { class: "empty" }, "No such node is registered that may be seen."));
      const own = checks.filter((check) => !check.ServiceID);
      const on = own.some(isWord);
      const action = rows[0]?.Writable && maintenance("/v1/agent/maintenance", name, on, `All instances on ${name} leave DNS until it is ended.`, failed);
      const instances = all.Services.map((one) => {
        const of = checks.filter((check) => check.ServiceID === one.ID || !check.ServiceID);
        return [h("a", { href: `#/service/${part(one.Service)}` }, one.Service), one.ID, status(standing(of)), `${one.Address || all.Node.Address}:${one.Port}`];
      });
      replace(body,
        h("section", { class: `card ${STYLES[standing(own)]}` },
          h("div", { class: "top" }, status(standing(own)), h("span", {}, all.Node.Address), action || ""),
          facts([["Meta", pairs(all.Node.Meta)]]), checkRows(own)),
        h("h2", {}, "Instances"),
        instances.length ? table(["Service", "Instance", "Health", "Address"], instances) : h("p", { class: "empty" }, "None."));
    } catch (error) {
      if (error instanceof Refused) failed(error);
    }
  };
  follow(`/v1/health/node/${part(name)}`, seen, failed, signal, { patience });
}
