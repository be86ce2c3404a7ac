// Elements from data. Texts come from services and their checks: they become text, never markup.

// h("a", { href: "#/" , class: "x", onclick: f }, "text", element, [more])
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else element.setAttribute(key, value);
  }
  element.append(...shown(children));
  return element;
}

// All that is there, however deep in lists it stands.
const shown = (children) => children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false);

// A health or status: its word, and its colour.
export function status(word) {
  return h("span", { class: `status ${word}` }, word);
}

export function tags(list) {
  return (list ?? []).map((tag) => h("span", { class: "tag" }, tag));
}

// Terms and what they are; those without are left out.
export function facts(pairs) {
  const rows = pairs.filter(([, value]) => value !== undefined && value !== null && value !== "" && value.length !== 0);
  return h("dl", { class: "facts" }, rows.map(([term, value]) => [h("dt", {}, term), h("dd", {}, value)]));
}

export function table(titles, rows) {
  const head = h("tr", {}, titles.map((title) => h("th", { scope: "col" }, title)));
  const body = rows.map((cells) => h("tr", {}, cells.map((cell) => h("td", {}, cell))));
  return h("table", {}, h("thead", {}, head), h("tbody", {}, body));
}

// The time of day, and the day where it is another one; the whole of it on hover.
export function moment(text) {
  const at = new Date(text);
  if (Number.isNaN(at.getTime())) return text ?? "";
  const today = at.toDateString() === new Date().toDateString();
  return h("time", { datetime: text, title: text }, today ? at.toLocaleTimeString() : at.toLocaleString());
}

const ORDER = ["passing", "warning", "critical", "maintenance"];

export function worst(words) {
  return words.reduce((a, b) => (ORDER.indexOf(b) > ORDER.indexOf(a) ? b : a), "passing");
}

export function plural(count, word) {
  return `${count.toLocaleString()} ${word}${count === 1 ? "" : "s"}`;
}

// What a page shows anew keeps the focus and the place that it had.
export function replace(parent, ...children) {
  const active = parent.contains(document.activeElement) ? document.activeElement.dataset.key : undefined;
  parent.replaceChildren(...shown(children));
  if (active) parent.querySelector(`[data-key="${CSS.escape(active)}"]`)?.focus();
}
