// The pages of all services, of all nodes, and of the changes as they come.

import { follow, part } from "./api.js";
import { h, moment, plural, replace, status, table, tags } from "./dom.js";
import { list } from "./list.js";
import { store } from "./store.js";

const number = (count) => (count ? count.toLocaleString() : h("span", { class: "none" }, "0"));
const byName = (a, b) => (a.Name < b.Name ? -1 : a.Name > b.Name ? 1 : 0);

// The worst that is there, so that what needs a look stands out.
export function health(row) {
  if (row.Critical) return "critical";
  if (row.Warning) return "warning";
  if (row.Maintenance && !row.Passing) return "maintenance";
  return "passing";
}

// A search box and a choice of health above a list; `show` is called when either changes.
function sieve(what, show) {
  const text = h("input", { type: "search", placeholder: `Find ${what} (press /)`, "aria-label": `Find ${what}`, id: "find",
    oninput: show });
  const choice = h("select", { "aria-label": "Health", onchange: show },
    ["all", "passing", "warning", "critical", "maintenance"].map((word) => h("option", { value: word }, word)));
  const count = h("span", { class: "soft", role: "status" });
  const fits = (name, word) => {
    const wanted = text.value.trim().toLowerCase();
    return (choice.value === "all" || choice.value === word) && (!wanted || name.toLowerCase().includes(wanted));
  };
  return { bar: h("div", { class: "bar" }, text, choice, count), text, fits, count };
}

export function services(main, signal) {
  const rows = list({
    label: "Services", kind: "services",
    columns: [["Service", ""], ["Health", ""], ["Instances", "number"], ["Passing", "number"], ["Warning", "number"],
      ["Critical", "number"], ["Maintenance", "number"], ["Circuit open", "number"], ["Guarded", "number"], ["Tags", ""]],
    cells: (row) => [row.Name, status(health(row)), number(row.Instances), number(row.Passing), number(row.Warning),
      number(row.Critical), number(row.Maintenance), number(row.Out), number(row.Guarded), tags(row.Tags)],
    open: (row) => { location.hash = `#/service/${part(row.Name)}`; },
  });
  const show = () => {
    const all = [...store.services.values()];
    const found = all.filter((row) => filter.fits(`${row.Name} ${row.Tags.join(" ")}`, health(row))).sort(byName);
    filter.count.textContent = found.length === all.length ? plural(all.length, "service")
      : `${found.length.toLocaleString()} of ${plural(all.length, "service")}`;
    rows.show(found);
  };
  const filter = sieve("services", show);
  filter.text.addEventListener("keydown", (event) => { if (event.key === "ArrowDown" || event.key === "Enter") rows.focus(); });
  main.replaceChildren(h("h1", {}, "Services"), filter.bar, rows.element);
  store.addEventListener("services", show, { signal });
  show();
}

export function nodes(main, signal, failed) {
  const rows = list({
    label: "Nodes", kind: "nodes",
    columns: [["Node", ""], ["Health", ""], ["Address", ""], ["Instances", "number"], ["Passing", "number"], ["Warning", "number"],
      ["Critical", "number"]],
    cells: (row) => [row.Name, status(row.Health), row.Address, number(row.Instances), number(row.Passing), number(row.Warning),
      number(row.Critical)],
    open: (row) => { location.hash = `#/node/${part(row.Name)}`; },
  });
  let all = [];
  const show = () => {
    const found = all.filter((row) => filter.fits(`${row.Name} ${row.Address}`, row.Health));
    filter.count.textContent = found.length === all.length ? plural(all.length, "node")
      : `${found.length.toLocaleString()} of ${plural(all.length, "node")}`;
    rows.show(found);
  };
  const filter = sieve("nodes", show);
  filter.text.addEventListener("keydown", (event) => { if (event.key === "ArrowDown" || event.key === "Enter") rows.focus(); });
  main.replaceChildren(h("h1", {}, "Nodes"), filter.bar, rows.element);
  follow("/v1/rollcall/nodes", (value) => { all = value; show(); }, failed, signal, { rest: 1000 });
}

// A change in a few words.
function told(change) {
  if (change.kind === "check" && change.Change === "status") return [status(change.Before), " to ", status(change.After)];
  if (change.kind === "route") return [change.Subsets?.join(" ") || (change.Change === "set" ? "all instances answer" : change.Change)];
  if (change.kind === "maintenance") return change.Change === "begun" ? ["began: ", change.Reason || "no reason given"] : ["ended"];
  return [change.Change];
}

export function changes(main, signal) {
  const body = h("div");
  const show = () => {
    if (store.state === "polling") {
      return replace(body, h("p", { class: "empty" }, "This token may not follow single changes (that needs acl:write). The other pages follow them."));
    }
    if (!store.changes.length) return replace(body, h("p", { class: "empty" }, "Nothing has changed since this page was opened."));
    replace(body, table(["Time", "Index", "What", "Service", "Instance", "Node", "Change"], store.changes.slice(0, 200).map((change) => [
      moment(change.at), String(change.Index), change.CheckID ? `check ${change.CheckID}` : change.kind,
      change.Service ? h("a", { href: `#/service/${part(change.Service)}` }, change.Service) : "",
      change.ID ?? "", h("a", { href: `#/node/${part(change.Node)}` }, change.Node), told(change),
    ])));
  };
  main.replaceChildren(h("h1", {}, "Changes"), body);
  store.addEventListener("changes", show, { signal });
  store.addEventListener("state", show, { signal });
  show();
}
