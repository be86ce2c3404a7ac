// One case in Chromium: `node ui.mjs CASE FOLDER-WITH-NODE_MODULES FOLDER-FOR-PICTURES`.

import { createRequire } from "node:module";
import { createServer } from "node:http";
import { Resolver } from "node:dns/promises";
import { join } from "node:path";

const [name, folder, shots] = process.argv.slice(2);
const { chromium } = createRequire(join(folder, "package.json"))("playwright-core");

const BASE = "http://127.0.0.1:8500";
const PATIENCE = 20_000;
let failed = 0;

function check(holds, what, detail = "") {
  console.log(holds ? `ok    ${what}` : `FAIL  ${what}${detail === "" ? "" : `: ${detail}`}`);
  failed += holds ? 0 : 1;
}

const equal = (got, wanted, what) => check(JSON.stringify(got) === JSON.stringify(wanted), what, `got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`);

async function api(method, path, body, token) {
  const headers = token ? { "X-Consul-Token": token } : {};
  const answer = await fetch(BASE + path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body) });
  const text = await answer.text();
  if (!answer.ok) throw new Error(`${method} ${path}: ${answer.status} ${text}`);
  return text ? JSON.parse(text) : null;
}

// Waits for something that is not in the page.
async function until(what, holds) {
  const deadline = Date.now() + PATIENCE;
  while (!(await holds())) {
    if (Date.now() > deadline) throw new Error(`never: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

// An HTTP server that is a service; closing it cuts its connections, as a crash does.
async function target(port = 0) {
  const server = createServer((_, answer) => answer.end("fine"));
  await new Promise((done) => server.listen(port, "127.0.0.1", done));
  return { port: server.address().port, close: () => new Promise((done) => { server.close(done); server.closeAllConnections(); }) };
}

const resolver = new Resolver();
resolver.setServers(["127.0.0.1:8600"]);
const resolved = (service) => resolver.resolve4(`${service}.service.internal`).catch(() => []);

const browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox", "--disable-gpu"] });

// A page that notes what must not be: errors, what the policy blocks, and requests to others.
async function open(path, { scheme = "light", size = { width: 1100, height: 680 } } = {}) {
  const context = await browser.newContext({ viewport: size, colorScheme: scheme });
  const page = await context.newPage();
  page.setDefaultTimeout(PATIENCE);
  page.wrong = [];
  page.on("pageerror", (error) => page.wrong.push(error.message));
  page.on("console", (line) => {
    // What the server refuses is told by the browser as well.
    if (line.type() === "error" && !line.text().startsWith("Failed to load resource")) page.wrong.push(line.text());
  });
  page.on("request", (request) => { if (!request.url().startsWith(BASE)) page.wrong.push(request.url()); });
  await page.goto(BASE + path);
  return page;
}

async function done(page, what) {
  equal(page.wrong, [], `${what}: no error, nothing that the policy blocks, no request to others`);
  await page.context().close();
}

const shot = (page, file) => page.screenshot({ path: join(shots, `${file}.png`) });

const HOSTILE = `<img src=x onerror="window.hacked=1"><script>window.hacked=1</script>`;

async function live() {
  const first = await target();
  await api("PUT", "/v1/agent/service/register", { Name: "web", ID: "web-1", Address: "127.0.0.1", Port: first.port, Tags: ["v1"],
    Meta: { version: "1.4" }, Check: { CheckID: "web-1", HTTP: `http://127.0.0.1:${first.port}/`, Interval: "60s", Timeout: "2s" } });
  const page = await open("/ui/");
  await page.evaluate(() => { window.same = true; });
  const row = (text) => page.locator(".services .space .row", { hasText: text });
  await row("web").locator(".passing").waitFor();
  check(true, "a service and its health are listed");

  await api("PUT", "/v1/agent/service/register", { Name: "orders", ID: "orders-1", Address: "10.0.0.7", Port: 81 });
  await row("orders").waitFor();
  check(true, "a service that comes is shown without a reload");
  await api("PUT", "/v1/agent/service/deregister/orders-1");
  await row("orders").waitFor({ state: "detached" });
  check(true, "and goes");

  await page.keyboard.press("/");
  await page.keyboard.type("we");
  await page.keyboard.press("ArrowDown");
  await page.keyboard.press("Enter");
  await page.waitForURL("**/ui/#/service/web");
  const card = page.locator("[data-instance='web-1']");
  await card.locator("pre", { hasText: "200 OK" }).waitFor();
  check(true, "found and opened by the keyboard alone; its check's output is shown");
  equal(await card.getAttribute("class"), "card good", "it is green");
  for (const part of ["v1", "version = 1.4", "1 passing"]) check((await card.innerText()).includes(part), `it has ${part}`);

  await first.close();
  await page.locator("[data-instance='web-1'].bad").waitFor();
  await card.locator(".critical").first().waitFor();
  check(true, "a check that fails turns it red without a reload");
  await page.locator("section[aria-label=History] tr", { hasText: "probe" }).first().waitFor();
  check(true, "and its history says that a probe found it");
  const again = await target(first.port);
  await page.locator("[data-instance='web-1'].good").waitFor();
  check(true, "and green again when it is back");

  await api("PUT", "/v1/agent/service/register", { Name: "web", ID: "web-2", Address: "127.0.0.1", Port: 9, Tags: ["v2"] });
  await page.locator("[data-instance='web-2']").getByRole("button", { name: "Begin maintenance" }).click();
  await page.locator("#reason-text").fill("new disk");
  await page.keyboard.press("Enter");
  await page.locator("[data-instance='web-2'].away", { hasText: "new disk" }).waitFor();
  const list = await open("/ui/");
  const counts = list.locator(".services .space .row", { hasText: "web" }).locator(".number");
  await counts.first().waitFor();
  // All, passing, warning, critical, in maintenance, with an open circuit.
  equal(await counts.allInnerTexts(), ["2", "1", "0", "0", "1", "0", "0"], "the list of services counts who is in maintenance");
  await done(list, "list");
  const srv = await resolver.resolveSrv("web.service.internal");
  equal(srv.map((one) => one.port), [first.port], "an instance that is put into maintenance by a click is out of DNS");
  await shot(page, "service");
  await page.locator("[data-instance='web-2']").getByRole("button", { name: "End maintenance" }).click();
  await page.locator("[data-instance='web-2'].good").waitFor();
  await until("it is in DNS", async () => (await resolver.resolveSrv("web.service.internal")).length === 2);
  check(true, "and in again by another");
  check(await page.evaluate(() => window.same === true), "all of it in one page, never loaded anew");

  const now = (percent) => page.locator("section[aria-label=Route]").getByRole("cell", { name: percent, exact: true });
  await page.getByLabel("Subsets").fill("v2=1\nv1=0");
  await page.getByRole("button", { name: "Set route" }).click();
  await now("100 %").waitFor();
  const ports = async () => (await resolver.resolveSrv("web.service.internal")).map((one) => one.port).sort((a, b) => a - b);
  equal(await ports(), [9], "a route that is set by a click changes what DNS answers");
  await page.locator("section[aria-label=History] tr", { hasText: "route version 1" }).waitFor();
  check(true, "and is in the history");
  await page.locator("[data-instance='web-1'] dd", { hasText: "the service's route gives it no share" }).waitFor();
  check(true, "and on the cards of the instances");
  await page.getByLabel("Subsets").fill("v3=1");
  await page.getByRole("button", { name: "Set route" }).click();
  await page.locator("#notice", { hasText: "no instance of service" }).waitFor();
  equal(await ports(), [9], "one of no instance is refused with the reason, and changes nothing");
  await api("PUT", "/v1/rollcall/route/web", { Subsets: ["v1=1", "v2=1"] });
  await now("50 %").first().waitFor();
  check(true, "one that another sets is shown without a reload");
  await api("PUT", "/v1/rollcall/route/web", { Subsets: ["v1=0", "v2=1"], Over: "4s" });
  await page.locator("[data-instance='web-1'] dd", { hasText: "the service's route gives it no share" }).waitFor();
  await now("100 %").waitFor();
  equal(await ports(), [9], "and one on its way to its end, as DNS goes there");
  await api("PUT", "/v1/rollcall/route/web/undo");
  await now("50 %").first().waitFor();
  await shot(page, "route");
  await page.getByRole("button", { name: "Undo" }).click();
  await now("100 %").waitFor();
  equal(await ports(), [9], "undone by a click");
  await page.getByRole("button", { name: "Clear" }).click();
  await page.getByText("all healthy instances answer").waitFor();
  equal(await ports(), [9, first.port].sort((a, b) => a - b), "cleared by a click");
  await page.locator("[data-instance='web-2']").getByRole("button", { name: "Drain" }).click();
  await page.locator("[data-instance='web-2']", { hasText: "Safe to stop" }).waitFor();
  for (const part of ["connections that are open", "zone transfers", "prepared query"]) check((await page.locator("[data-instance='web-2']").innerText()).includes(part), `what is not proved is said: ${part}`);
  equal(await ports(), [first.port], "an instance that is drained by a click is out of DNS, and it is said when it is safe to stop it");
  await page.locator("[data-instance='web-2']").getByRole("button", { name: "End maintenance" }).click();
  await page.locator("[data-instance='web-2'].good").waitFor();

  await api("PUT", "/v1/agent/service/maintenance/web-2?enable=true&reason=new+disk");
  await page.getByRole("link", { name: "Ask DNS" }).click();
  await page.getByLabel("Name", { exact: true }).fill("v1.web.service.internal");
  await page.keyboard.press("Enter");
  const told = (text) => page.locator("#explained tr", { hasText: text });
  await told("web-1").locator(".in").waitFor();
  equal(await told("web-2").locator(".out").count(), 1, "a name that is asked for is answered, and each instance is in or out");
  check((await told("web-2").innerText()).includes("lacks the tag"), "with the reason");
  check((await page.locator("#explained pre").first().innerText()).startsWith("v1.web.service.internal. "), "and the records");
  await page.locator("select[name=type]").selectOption("SRV");
  await page.getByLabel("Name", { exact: true }).fill("web");
  await page.getByRole("button", { name: "Ask" }).click();
  await told("in maintenance: new disk").waitFor();
  check(true, "a service's name alone will do");
  await shot(page, "ask");
  await page.getByLabel("Address of who asks").fill("nowhere");
  await page.keyboard.press("Enter");
  await page.locator("#notice", { hasText: "Invalid address" }).waitFor();
  check(true, "what is wrong with a question is said");

  await page.getByRole("link", { name: "Changes" }).click();
  await api("PUT", "/v1/agent/service/register", { Name: "late", ID: HOSTILE, Port: 1, Meta: { note: HOSTILE },
    Check: { CheckID: "late", TTL: "1h", Status: "passing", Notes: HOSTILE } });
  await api("PUT", "/v1/agent/check/update/late", { Status: "critical", Output: HOSTILE });
  await page.locator("tr", { hasText: "check late" }).locator(".critical").waitFor();
  check(true, "changes are shown as they come");
  await shot(page, "changes");
  await page.goto(`${BASE}/ui/#/service/late`);
  await page.locator("pre", { hasText: "<img src=x" }).waitFor();
  check(await page.evaluate(() => window.hacked === undefined && document.images.length === 0), "what a service says of itself is text, never markup");

  await page.getByRole("link", { name: "Nodes" }).click();
  await page.locator(".nodes .space .row").first().click();
  await page.locator("td", { hasText: "web-1" }).waitFor();
  check(true, "a node shows what is on it");
  await done(page, "light");

  const dark = await open("/ui/", { scheme: "dark" });
  await dark.locator(".services .space .row", { hasText: "web" }).waitFor();
  const back = await dark.evaluate(() => getComputedStyle(document.body).backgroundColor);
  equal(back, "rgb(20, 23, 27)", "whoever wants it dark has it dark");
  await shot(dark, "services-dark");
  await done(dark, "dark");

  // Another origin on this machine.
  const other = await target();
  const policed = await browser.newPage();
  await policed.goto(`${BASE}/ui/`);
  const let_by = await policed.evaluate(async (far) => {
    try {
      const script = document.createElement("script");
      script.textContent = "window.ran = true";
      document.body.append(script);
    } catch { /* Text that becomes a script is no trusted type. */ }
    const sent = await fetch(far, { mode: "no-cors" }).then(() => "sent", () => "kept");
    return [window.ran ?? "kept", sent];
  }, `http://127.0.0.1:${other.port}/`);
  equal(let_by, ["kept", "kept"], "the page runs no script in its text, and sends nothing elsewhere");
  const stranger = await browser.newPage();
  await stranger.goto(`http://127.0.0.1:${other.port}/`);
  const tried = await stranger.evaluate(async (base) => {
    const put = await fetch(`${base}/v1/agent/service/deregister/web-1`, { method: "PUT" }).then((a) => a.status, () => "refused");
    const read = await fetch(`${base}/v1/rollcall/services`).then((a) => a.text(), () => "refused");
    return [put, read];
  }, BASE);
  equal(tried, ["refused", "refused"], "a page of another origin can neither write nor read");
  check((await api("GET", "/v1/catalog/service/web")).length === 2, "and nothing is changed");
  await Promise.all([other.close(), again.close()]);
}

async function fill(from, to) {
  for (let n = from; n < to; n += 40) {
    await Promise.all(Array.from({ length: Math.min(40, to - n) }, (_, i) => api("PUT", "/v1/catalog/register", {
      Node: `m${(n + i) % 100}`, Address: `10.9.0.${(n + i) % 100}`,
      Service: { Service: `svc-${String(n + i).padStart(5, "0")}`, ID: `svc-${n + i}`, Port: 80, Tags: ["a"] } })));
  }
}

// How long until all are listed, in milliseconds; the shortest of some.
async function opened(count) {
  const times = [];
  for (let n = 0; n < 4; n += 1) {
    const page = await open("/ui/icon.svg");
    const begun = performance.now();
    await page.goto(`${BASE}/ui/`);
    await page.locator("[role=status]", { hasText: `${count.toLocaleString("en-US")} services` }).waitFor();
    await page.locator(".services .space .row").first().waitFor();
    times.push(performance.now() - begun);
    await page.context().close();
  }
  return Math.min(...times);
}

async function many() {
  await fill(0, 99);
  // And the server's own.
  const few = await opened(100);
  await fill(99, 9_999);
  const all = await opened(10_000);
  check(all < few * 6, `ten thousand services are there after ${all.toFixed(0)} ms, a hundred after ${few.toFixed(0)} ms`, "more than six times as long");

  const page = await open("/ui/");
  const rows = page.locator(".services .space .row");
  await page.locator("[role=status]", { hasText: "10,000 services" }).waitFor();
  await rows.first().waitFor();
  check((await rows.count()) < 100, "only rows in sight are in the page", await rows.count());
  await shot(page, "services");
  await page.locator(".services .view").focus();
  await page.keyboard.press("End");
  await rows.filter({ hasText: "svc-09998" }).waitFor();
  check((await rows.count()) < 100, "the last one is a key away");
  // From a key to the next picture.
  const frame = (text) => page.evaluate((wanted) => new Promise((done) => {
    const find = document.getElementById("find");
    find.value = wanted;
    const begun = performance.now();
    find.dispatchEvent(new Event("input"));
    requestAnimationFrame(() => done(performance.now() - begun));
  }), text);
  await page.locator("#find").fill("svc-0123");
  await page.locator("[role=status]", { hasText: "10 of 10,000 services" }).waitFor();
  await page.waitForFunction(() => document.querySelectorAll(".services .space .row").length === 10);
  check(true, "found among ten thousand");
  const looked = [await frame("9"), await frame("99"), await frame("998")];
  console.log(`      from a key to a picture: ${looked.map((millis) => `${millis.toFixed(0)} ms`).join(", ")}`);
  await page.locator("#find").fill("svc-05000");
  await rows.filter({ hasText: "svc-05000" }).locator(".passing").waitFor();
  await api("PUT", "/v1/catalog/register", { Node: "m0", Address: "10.9.0.0", SkipNodeUpdate: true,
    Check: { CheckID: "c", Name: "c", Status: "critical", ServiceID: "svc-5000" } });
  await rows.filter({ hasText: "svc-05000" }).locator(".critical").waitFor();
  check(true, "one of ten thousand turns red without a reload");
  await done(page, "ten thousand");
}

async function tokens() {
  const root = (await api("PUT", "/v1/acl/bootstrap")).SecretID;
  const token = async (name, rules) => {
    await api("PUT", "/v1/acl/policy", { Name: name, Rules: rules }, root);
    return (await api("PUT", "/v1/acl/token", { Policies: [{ Name: name }] }, root)).SecretID;
  };
  const reader = await token("reads", `service "web" { policy = "read" } node_prefix "" { policy = "read" }`);
  const writer = await token("writes", `service "web" { policy = "write" } node_prefix "" { policy = "read" }`);
  for (const service of ["web", "secret"]) {
    await api("PUT", "/v1/agent/service/register", { Name: service, ID: `${service}-1`, Address: "10.0.0.1", Port: 80 }, root);
  }
  const page = await open("/ui/");
  const row = (text) => page.locator(".services .space .row", { hasText: text });
  const use = async (secret) => {
    await page.getByRole("button", { name: "Token" }).click();
    await page.locator("#token-text").fill(secret);
    await page.keyboard.press("Enter");
  };
  await page.locator("[role=status]", { hasText: "0 services" }).first().waitFor();
  check(true, "without a token nothing is shown");
  await use("wrong");
  await page.locator("#notice", { hasText: "The server does not know this token" }).waitFor();
  check(true, "a wrong token is said to be unknown");
  await shot(page, "wrong-token");
  await use(reader);
  await row("web").waitFor();
  check(await page.locator("#notice").isHidden(), "with another one the message goes");
  equal(await row("secret").count(), 0, "what it may not read is not there");
  await row("web").click();
  await page.locator("[data-instance='web-1']").waitFor();
  await page.locator("section[aria-label=History] td", { hasText: "registered" }).waitFor();
  equal(await page.getByRole("button", { name: /maintenance|Drain|Set route|Undo|Clear/ }).count(), 0, "who may only read has no button");
  await api("PUT", "/v1/agent/service/maintenance/web-1?enable=true&reason=moving", undefined, root);
  await page.locator("[data-instance='web-1'].away").waitFor();
  check(true, "what changes is shown to a token that may not follow all changes, too");
  await api("PUT", "/v1/agent/service/maintenance/web-1?enable=false", undefined, root);
  await use(writer);
  await page.locator("[data-instance='web-1'].good").getByRole("button", { name: "Begin maintenance" }).waitFor();
  check(true, "who may write has it");
  await page.getByRole("button", { name: "Set route" }).waitFor();
  check(true, "and may set a route");
  await page.reload();
  await page.locator("[data-instance='web-1']").waitFor();
  check(true, "the token is there after a reload");
  const kept = await page.evaluate(() => [localStorage.length, sessionStorage.length, document.cookie, location.href]);
  equal([kept[0], kept[1], kept[2], kept[3].includes(writer)], [0, 1, "", false], "kept for this tab alone: in no cookie, no address, no lasting store");
  await page.getByRole("button", { name: "Token" }).click();
  await page.getByRole("button", { name: "Forget" }).click();
  await page.getByText("No instance of this service is registered that may be seen.").waitFor();
  equal(await page.evaluate(() => sessionStorage.length), 0, "and forgotten by a click");
  await done(page, "tokens");
}

async function steady() {
  for (const n of [1, 2, 3]) {
    await api("PUT", "/v1/agent/service/register", { Name: "web", ID: `web-${n}`, Address: `10.0.0.${n}`, Port: 80,
      Check: { CheckID: `c${n}`, TTL: "1h", Status: "passing" } });
  }
  const page = await open("/ui/#/service/web");
  await page.locator("[data-instance='web-3'].good").waitFor();
  equal(await page.locator(".state").count(), 0, "nothing is said while all is well");
  await api("PUT", "/v1/rollcall/report", { Reports: [{ Service: "web", ID: "web-1", Failure: 10 }] });
  await page.locator(".state", { hasText: "1 instance out of DNS" }).waitFor();
  const list = await open("/ui/");
  const counts = list.locator(".services .space .row", { hasText: "web" }).locator(".number");
  await counts.first().waitFor();
  equal(await counts.allInnerTexts(), ["3", "3", "0", "0", "0", "1", "0"], "and counted in the list of services");
  await done(list, "list");
  equal((await resolved("web")).length, 2, "an instance that fails its callers is said to be out, and is");
  await page.locator("[data-instance='web-1'] dd", { hasText: "out: its circuit is open" }).waitFor();
  check(true, "on its own card, too");
  await page.locator("section[aria-label=History] td", { hasText: "reports of failures" }).first().waitFor();
  check(true, "and its history says why");
  await page.locator(".state", { hasText: "1 instance on trial" }).waitFor();
  check(true, "then it is on trial, without a reload");
  await page.locator("[data-instance='web-1'] dd", { hasText: "its circuit is half open" }).waitFor();
  check(true, "with the lowest weight, by its card");
  await api("PUT", "/v1/rollcall/report", { Reports: [{ Service: "web", ID: "web-1", Success: 5 }] });
  await page.locator(".state").waitFor({ state: "detached" });
  check(true, "and back");
  for (const n of [1, 2]) await api("PUT", `/v1/agent/check/fail/c${n}`);
  await page.locator(".state", { hasText: "DNS goes on to give 2 critical instances" }).waitFor();
  equal((await resolved("web")).length, 3, "what a guard keeps is said, and given");
  await page.locator("[data-instance='web-2'] dd", { hasText: "since too many instances failed at once" }).waitFor();
  check(true, "and which they are");
  await shot(page, "steady");
  await page.locator(".state").waitFor({ state: "detached" });
  equal((await resolved("web")).length, 1, "until its time is over");
  for (const n of [1, 2]) await api("PUT", "/v1/agent/service/register", { Name: "slow", ID: `slow-${n}`, Address: `10.0.1.${n}`, Port: 80 });
  await page.goto(`${BASE}/ui/#/service/slow`);
  await page.locator("[data-instance='slow-2'] dd", { hasText: /it starts slowly, and has \d+ percent/ }).waitFor();
  check(true, "who starts slowly is said to");
  await page.locator("[data-instance='slow-2'] dd", { hasText: "its check passes" }).filter({ hasNotText: "slowly" }).waitFor();
  check(true, "until it has its whole weight, without a reload");
  await api("PUT", "/v1/agent/service/register", { Name: "timed", ID: "timed-1", Address: "10.0.3.1", Port: 80, Check: { TTL: "1h" } });
  await page.goto(`${BASE}/ui/#/service/timed`);
  await page.locator("[data-instance='timed-1'] pre", { hasText: "waits for PUT /v1/agent/check/pass/service:timed-1" }).waitFor();
  check(true, "a TTL check that nobody passed says what it waits for");
  await api("PUT", "/v1/agent/check/update/service:timed-1", { Status: "critical", Output: "another word" });
  await page.locator("[data-instance='timed-1'] pre", { hasText: "another word" }).waitFor();
  check(true, "output that changes alone is shown, too, without a reload");
  const flapping = await target();
  await api("PUT", "/v1/agent/service/register", { Name: "flap", ID: "flap-1", Address: "10.0.2.1", Port: 80,
    Check: { HTTP: `http://127.0.0.1:${flapping.port}/`, Interval: "1s", FlapMax: 1, FlapLeak: "1h", FlapSteady: "1h" } });
  await page.goto(`${BASE}/ui/#/service/flap`);
  await page.locator("[data-instance='flap-1'].good").waitFor();
  await flapping.close();
  await page.locator("[data-instance='flap-1'].bad").waitFor();
  const back = await target(flapping.port);
  await page.locator("[data-instance='flap-1'] pre", { hasText: "Held critical:" }).waitFor();
  check(true, "a check that is held critical says so");
  await back.close();
  await done(page, "steady");
}

const cases = { live, many, tokens, steady };
try {
  await cases[name]();
} catch (error) {
  check(false, name, error.stack ?? error);
} finally {
  await browser.close();
}
process.exit(failed === 0 ? 0 : 1);
