// What became of a service of late.

import { get, part } from "./api.js";
import { h, moment, replace, status, table } from "./dom.js";

const SHOWN = 50;

function what(change) {
  if (change.Change === "status" && change.Before === change.After) return [`check ${change.CheckID}: held `, status(change.After)];
  if (change.Change === "status") return [`check ${change.CheckID}: `, status(change.Before), " to ", status(change.After)];
  if (change.Kind === "route") {
    if (change.Change !== "set") return [`route ${change.Change}`];
    return [`route version ${change.Version}: ${change.Subsets.join(" ") || "all instances answer"} (${change.Why})`];
  }
  const of = change.CheckID ? `check ${change.CheckID} ` : ["circuit", "guard"].includes(change.Kind) ? `${change.Kind} ` : "";
  return [`${of}${change.Change}`, change.Reason ? `: ${change.Reason}` : ""];
}

// `read` reads it anew.
export function history(name, signal) {
  const body = h("div");
  const element = h("section", { "aria-label": "History" }, h("h2", {}, "History"), body);
  async function read() {
    try {
      const { value } = await get(`/v1/rollcall/history/${part(name)}`, signal);
      const rows = value.Changes.slice(0, SHOWN).map((change) => [moment(change.Time), change.ID ?? "", what(change),
        change.Served ? `${change.Served.Before ? "in" : "out"} to ${change.Served.After ? "in" : "out"}` : "", change.Cause, change.Actor,
        change.Output ?? ""]);
      replace(body, rows.length ? table(["Time", "Instance", "What", "DNS", "Cause", "By", "Output"], rows)
        : h("p", { class: "empty" }, "Nothing that is kept."));
    } catch (error) {
      if (!signal.aborted) replace(body, h("p", { class: "empty" }, error.told ?? String(error)));
    }
  }
  return { element, read };
}
