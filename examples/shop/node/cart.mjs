// The shop's `cart`, in Node: asks `stock`. Nothing but what Node has. (`fetch` and `dns.lookup` know no SRV records; a Resolver does.)
//
// The environment is that of the Go programs (mesh/mesh.go).

import { Resolver } from "node:dns/promises";
import { createServer } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";

const NAME = "cart";
const { ADDRESS, PORT, VERSION, GRACE, ROLLCALL_DNS, CONSUL_HTTP_ADDR } = process.env;
const ID = `${NAME}-${VERSION}-${ADDRESS}`;

const resolver = new Resolver({ timeout: 1000, tries: 2 });
resolver.setServers([ROLLCALL_DNS]);

/** One of these records, by their weights (RFC 2782). */
function draw(records) {
  let left = Math.random() * records.reduce((sum, one) => sum + Math.max(one.weight, 1), 0);
  return records.find((one) => (left -= Math.max(one.weight, 1)) < 0) ?? records[0];
}

/** host:port of an instance. */
async function find(service) {
  const record = draw(await resolver.resolveSrv(`_${service}._tcp.service.internal`));
  const [address] = await resolver.resolve4(record.name);
  return `${address}:${record.port}`;
}

/** What an instance of the service answers. One request; whatever fails is seen to fail. */
async function ask(service) {
  const answer = await fetch(`http://${await find(service)}/`, { signal: AbortSignal.timeout(2000) });
  if (!answer.ok) throw new Error(`${service}: ${answer.status}`);
  return answer.json();
}

async function rollcall(path, body) {
  const answer = await fetch(`http://${CONSUL_HTTP_ADDR}${path}`, { method: "PUT", body: body && JSON.stringify(body) });
  if (!answer.ok) throw new Error(`PUT ${path}: ${answer.status} ${await answer.text()}`);
}

const server = createServer(async (request, response) => {
  if (request.url === "/health") return response.end("OK\n");
  try {
    const served = [`${NAME}/${VERSION}`, ...(await ask("stock")).served];
    response.setHeader("Content-Type", "application/json").end(JSON.stringify({ served }));
  } catch (error) {
    response.writeHead(502).end(`${error.message} ${error.cause ?? ""}\n`);
  }
});
// Rollcall keeps its probes' connection and hears at once when this program dies. Node would close it after 5 s, before the next probe.
server.keepAliveTimeout = 15_000;
await new Promise((listening) => server.listen(Number(PORT), ADDRESS, listening));
await rollcall("/v1/agent/service/register", {
  ID, Name: NAME, Address: ADDRESS, Port: Number(PORT), Tags: [VERSION], Meta: { version: VERSION },
  Check: { HTTP: `http://${ADDRESS}:${PORT}/health`, Interval: "10s", Timeout: "5s" },
});
console.log(`${ID} listening on ${ADDRESS}:${PORT}`);

// Out of DNS first; then, when no cache can have it any more, to the end.
await new Promise((stop) => process.once("SIGTERM", stop));
await rollcall(`/v1/agent/service/maintenance/${ID}?enable=true&reason=stopping`);
await sleep(Number(GRACE) * 1000);
server.close();
await rollcall(`/v1/agent/service/deregister/${ID}`);
process.exit(0);
