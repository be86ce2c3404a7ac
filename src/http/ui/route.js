// The route of a service: what it is, and, where the token may change it, a form that sets another.

import { Refused, follow, get, part, send } from "./api.js";
import { h, moment, replace, table } from "./dom.js";

const field = (name, label, hint) => h("label", {}, `${label} `, h("input", { name, type: "text", placeholder: hint, autocomplete: "off", spellcheck: "false" }));

// Whether shares may not yet be those that were set. Where nobody of a subset is healthy they are others, too.
function onItsWay(now) {
  if (!now || now.Over === "0s") return false;
  const whole = now.Now.reduce((sum, one) => sum + one.Share, 0);
  return whole > 0 && now.Now.some((one) => Math.abs(one.Percent - (100 * one.Share) / whole) > 0.02);
}

// `may` is told whether the token may change it; `changed` that it is another one.
export function route(name, signal, failed, changed) {
  const path = `/v1/rollcall/route/${part(name)}`;
  const body = h("div");
  const subsets = h("textarea", { name: "subsets", rows: "2", cols: "40", spellcheck: "false", "aria-label": "Subsets", placeholder: "blue=95\ngreen=5" });
  const [over, abort] = [field("over", "Over", "10m"), field("abort", "Abort if unhealthy", "20%")];
  const undo = h("button", { type: "button" }, "Undo");
  const clear = h("button", { type: "button" }, "Clear");
  const form = h("form", { class: "route", hidden: true }, subsets, over, abort,
    h("div", { class: "actions" }, h("button", { type: "submit", class: "main" }, "Set route"), undo, clear));
  let touched = false;

  const change = async (method, at, value) => {
    try {
      await send(method, at, value);
      touched = false;
      failed(null);
    } catch (error) {
      failed(error);
    }
  };
  subsets.addEventListener("input", () => { touched = true; });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const text = (label) => label.querySelector("input").value.trim();
    change("PUT", path, { Subsets: subsets.value.split("\n").map((line) => line.trim()).filter(Boolean), Over: text(over), AbortIfUnhealthy: text(abort) });
  });
  undo.addEventListener("click", () => change("PUT", `${path}/undo`));
  clear.addEventListener("click", () => change("DELETE", path));

  const draw = ([now]) => {
    const active = now?.Subsets.length > 0;
    [undo.disabled, clear.disabled] = [!now?.Past.length, !active];
    if (!touched) subsets.value = active ? now.Subsets.join("\n") : "";
    if (!now) return replace(body, h("p", { class: "soft" }, "None: all healthy instances answer."));
    const rows = now.Now.map((one) => [one.By, one.Name, String(one.Share), `${one.Percent} %`]);
    replace(body, h("p", { class: "soft" }, `Version ${now.Version}: ${now.Why}, `, moment(now.Set), now.AbortIfUnhealthy ? `; back when more than ${now.AbortIfUnhealthy} are unhealthy` : "", active ? (now.Answers === "by shares" ? "" : `; who answers: ${now.Answers}`) : "; all healthy instances answer"),
      active ? table(["Subset", "Name", "Share", "Now"], rows) : "");
  };
  const seen = (all) => {
    changed();
    draw(all);
  };
  const list = `/v1/rollcall/routes?service=${part(name)}`;
  // Who is given what changes with the instances, too.
  const read = () => get(list, signal).then(({ value }) => draw(value)).catch(() => {});
  const quietly = (error) => { if (error instanceof Refused && error.status !== 403) failed(error); };
  // Time takes shares further without a change that would be waited for.
  follow(list, seen, quietly, signal, { patience: ([now]) => (onItsWay(now) ? 1 : 60) });
  return { element: h("section", { "aria-label": "Route" }, h("h2", {}, "Route"), body, form), read, may: (writable) => { form.hidden = !writable; } };
}
