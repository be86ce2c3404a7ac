// A list of any length: rows of one height, of which only those in sight are there. Arrows, Page, Home and End move, Enter opens.

import { h } from "./dom.js";

const HEIGHT = 34;
const MORE = 8;

// `columns`: [title, class]; `cells(item)` gives what stands in them; `open(item)` where Enter or a click leads.
export function list({ label, kind, columns, cells, open }) {
  let [items, picked, waiting] = [[], 0, false];
  const space = h("div", { class: "space", role: "rowgroup" });
  const view = h("div", { class: "view", tabindex: "0", "data-key": "list" }, space);
  const head = columns.map(([title, style]) => h("span", { role: "columnheader", class: style }, title));
  const element = h("div", { class: `list ${kind}`, role: "grid", "aria-label": label },
    h("div", { class: "row head", role: "row" }, head), view);

  function render() {
    waiting = false;
    const first = Math.max(0, Math.floor(view.scrollTop / HEIGHT) - MORE);
    const last = Math.min(items.length, Math.ceil((view.scrollTop + view.clientHeight) / HEIGHT) + MORE);
    const rows = items.slice(first, last).map((item, n) => {
      const at = first + n;
      const row = h("div", { class: "row", role: "row", id: `row-${at}`, "aria-rowindex": at + 2,
        "aria-selected": at === picked ? "true" : "false", onclick: () => { picked = at; open(item); } },
        cells(item).map((cell, column) => h("span", { role: "gridcell", class: columns[column][1] }, cell)));
      row.style.top = `${at * HEIGHT}px`;
      return row;
    });
    space.replaceChildren(...rows);
    view.setAttribute("aria-activedescendant", `row-${picked}`);
  }

  function later() {
    if (!waiting) requestAnimationFrame(render);
    waiting = true;
  }

  function pick(at) {
    picked = Math.max(0, Math.min(items.length - 1, at));
    const [top, bottom] = [picked * HEIGHT, (picked + 1) * HEIGHT];
    if (top < view.scrollTop) view.scrollTop = top;
    else if (bottom > view.scrollTop + view.clientHeight) view.scrollTop = bottom - view.clientHeight;
    render();
  }

  const page = () => Math.max(1, Math.floor(view.clientHeight / HEIGHT) - 1);
  const keys = { ArrowDown: () => picked + 1, ArrowUp: () => picked - 1, PageDown: () => picked + page(),
    PageUp: () => picked - page(), Home: () => 0, End: () => items.length - 1 };
  view.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && items[picked]) open(items[picked]);
    else if (keys[event.key]) pick(keys[event.key]());
    else return;
    event.preventDefault();
  });
  view.addEventListener("scroll", later);
  new ResizeObserver(later).observe(view);

  return {
    element,
    focus: () => view.focus(),
    show(next) {
      items = next;
      picked = Math.max(0, Math.min(picked, items.length - 1));
      space.style.height = `${items.length * HEIGHT}px`;
      element.setAttribute("aria-rowcount", items.length + 1);
      render();
    },
  };
}
