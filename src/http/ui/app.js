// Which page is shown, the token, and keys that work everywhere.

import { Refused, hasToken, setToken } from "./api.js";
import { ask } from "./ask.js";
import { changes, nodes, services } from "./lists.js";
import { node, service } from "./service.js";
import { store } from "./store.js";

const main = document.getElementById("main");
const notice = document.getElementById("notice");
const state = document.getElementById("state");
let page = new AbortController();

// What went wrong, until something goes right; null is nothing.
function failed(error) {
  if (error !== null && !(error instanceof Refused)) throw error;
  notice.hidden = error === null;
  notice.textContent = error?.told ?? "";
}

const PAGES = {
  services: (signal) => services(main, signal),
  nodes: (signal) => nodes(main, signal, failed),
  changes: (signal) => changes(main, signal),
  service: (signal, name) => service(main, signal, failed, name),
  node: (signal, name) => node(main, signal, failed, name),
  ask: (signal, _, query) => ask(main, signal, failed, query),
};
// The entry of the menu that a page belongs to.
const MENU = { service: "services", node: "nodes" };

function route() {
  page.abort();
  page = new AbortController();
  failed(store.state === "refused" ? store.error : null);
  const [path, query = ""] = location.hash.replace(/^#\/?/, "").split("?");
  const [first, ...rest] = path.split("/");
  const kind = Object.hasOwn(PAGES, first) ? first : "services";
  let name = rest.join("/");
  try {
    name = decodeURIComponent(name);
  } catch {
    // As it stands there.
  }
  document.title = name ? `${name} · Rollcall` : "Rollcall";
  for (const link of document.querySelectorAll("nav a")) {
    if (link.hash === `#/${MENU[kind] ?? kind}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  PAGES[kind](page.signal, name, new URLSearchParams(query));
  main.scrollTop = 0;
}

const WORDS = { starting: "connecting", live: "live", polling: "live", lost: "not connected, trying again", refused: "" };

store.addEventListener("state", () => {
  state.textContent = WORDS[store.state];
  state.className = { live: "live", polling: "live", lost: "lost" }[store.state] ?? "";
  if (store.state === "refused" || (store.state === "lost" && store.error)) failed(store.error);
  else if (store.state !== "starting") failed(null);
});

const dialog = document.getElementById("token-dialog");
const text = document.getElementById("token-text");
const button = document.getElementById("token");

function named() {
  button.textContent = hasToken() ? "Token ✓" : "Token";
}

button.addEventListener("click", () => {
  [text.value, dialog.returnValue] = ["", "cancel"];
  dialog.showModal();
  text.focus();
});
// Enter uses what was entered, whichever button comes first.
for (const input of document.querySelectorAll("dialog input")) {
  input.addEventListener("keydown", (event) => {
    if (event.key !== "Enter") return;
    event.preventDefault();
    input.closest("dialog").close("use");
  });
}
dialog.addEventListener("close", () => {
  if (dialog.returnValue === "use" && text.value.trim()) setToken(text.value);
  else if (dialog.returnValue === "forget") setToken("");
  else return;
  text.value = "";
  named();
  store.start();
  route();
});

document.addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName) || event.target.closest("dialog");
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape" && event.target.id === "find") event.target.blur();
  if (typing) return;
  const find = document.getElementById("find");
  if (event.key === "/" && find) {
    event.preventDefault();
    find.focus();
  }
});

window.addEventListener("hashchange", route);
named();
store.start();
route();
