// A name is asked for, and the answer explained.

import { get, part } from "./api.js";
import { facts, h, replace, table } from "./dom.js";

const TYPES = ["A", "AAAA", "SRV", "TXT", "PTR", "ANY", "SOA", "NS", "CNAME", "MX"];

function section(title, records) {
  return records.length ? [h("h2", {}, title), h("pre", {}, records.join("\n"))] : [];
}

function shown(answer) {
  const rows = (answer.Instances ?? []).map((row) => [
    h("span", { class: `status ${row.In ? "in" : "out"}` }, row.In ? "in" : "out"), row.ID,
    h("a", { href: `#/node/${part(row.Node)}` }, row.Node), row.Addresses.join(", "), String(row.Weight), row.Reason,
  ]);
  return [
    h("div", { class: "bar" }, h("strong", {}, `${answer.Name} ${answer.Type}`), h("span", { class: "status" }, answer.Rcode || "forwarded"),
      answer.Service ? h("a", { href: `#/service/${part(answer.Service)}` }, answer.Service) : ""),
    h("ul", {}, answer.Said.map((text) => h("li", {}, text))),
    facts([["TTL", answer.TTL === undefined ? "" : `${answer.TTL} s: ${answer.TTLReason}`], ["Index", String(answer.Index)],
      ["Serial", String(answer.Serial)], ["Size", answer.Octets ? `${answer.Octets} octets` : ""], ["Asked from", answer.From]]),
    ...section("Answer", answer.Answers), ...section("Authority", answer.Authorities), ...section("Additional", answer.Additionals),
    ...(rows.length ? [h("h2", {}, "Instances that were considered"), table(["", "Instance", "Node", "Address", "Weight", "Why"], rows)] : []),
  ];
}

export function ask(main, signal, failed, query) {
  const name = h("input", { class: "wide", name: "name", id: "find", required: true, placeholder: "web, or a whole name", "aria-label": "Name",
    autocomplete: "off", spellcheck: "false", value: query.get("name") ?? "" });
  const type = h("select", { name: "type", "aria-label": "Type" },
    TYPES.map((word) => h("option", { value: word, selected: word === (query.get("type") ?? "A") }, word)));
  const from = h("input", { name: "from", placeholder: "from this machine", "aria-label": "Address of who asks", autocomplete: "off",
    value: query.get("from") ?? "" });
  const result = h("div", { id: "explained", role: "status" });
  const submit = (event) => {
    event.preventDefault();
    const wanted = new URLSearchParams({ name: name.value.trim(), type: type.value });
    if (from.value.trim()) wanted.set("from", from.value.trim());
    const next = `#/ask?${wanted}`;
    if (location.hash === next) read();
    else location.hash = next;
  };
  async function read() {
    try {
      const { value } = await get(`/v1/rollcall/explain?${query}`, signal);
      failed(null);
      replace(result, ...shown(value));
    } catch (error) {
      if (!signal.aborted) { replace(result); failed(error); }
    }
  }
  main.replaceChildren(h("h1", {}, "Ask DNS"),
    h("form", { class: "bar", onsubmit: submit }, name, type, from, h("button", { type: "submit", class: "main" }, "Ask")), result);
  if (query.get("name")) read();
  else name.focus();
}
