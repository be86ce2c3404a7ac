// Node's own DNS resolver and fetch against Rollcall. Node resolves SRV only for those who ask for it.
import { Resolver } from 'node:dns/promises';
import { isDeepStrictEqual } from 'node:util';

let failed = 0;
function equal(got, wanted, what) {
  if (isDeepStrictEqual(got, wanted)) {
    console.log(`ok    ${what}`);
  } else {
    failed += 1;
    console.log(`FAIL  ${what}: got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`);
  }
}
async function code(promise) {
  try {
    await promise;
    return 'resolved';
  } catch (error) {
    return error.code;
  }
}

const resolver = new Resolver({ timeout: 2000, tries: 2 });
resolver.setServers(['127.0.0.1:8600']);

for (const name of ['web.service.consul', '_web._tcp.service.internal', 'v1.web.service.consul', 'WEB.service.CONSUL']) {
  const found = await resolver.resolveSrv(name);
  found.sort((a, b) => a.port - b.port);
  equal(found.map(({ priority, weight, port }) => [priority, weight, port]), [[1, 1, 8001], [1, 5, 8002]], `resolveSrv ${name}`);
  for (const { name: target, port } of found) {
    equal(await resolver.resolve4(target), [`192.0.2.${port - 7990}`], `its target ${target} resolves`);
  }
}
equal((await resolver.resolve4('web.service.consul')).sort(), ['192.0.2.11', '192.0.2.12'], 'resolve4');
const timed = await resolver.resolve4('web.service.consul', { ttl: true });
equal(timed.every(({ ttl }) => ttl >= 1 && ttl <= 5), true, 'resolve4 with TTLs of 1 to 5 s');
equal(await resolver.resolve6('six.service.consul'), ['2001:db8::66'], 'resolve6');
equal(await code(resolver.resolve4('six.service.consul')), 'ENODATA', 'resolve4 of a service with IPv6 only is ENODATA');
equal(await code(resolver.resolve4('idle.service.consul')), 'ENODATA', 'nobody healthy is ENODATA');
equal(await code(resolver.resolveSrv('nobody.service.consul')), 'ENOTFOUND', 'an unknown service is ENOTFOUND');
equal((await resolver.resolveSrv('many.service.consul')).length, 120, 'resolveSrv gets all of 120 instances');
equal((await resolver.resolveSoa('internal')).minttl, 1, 'resolveSoa');
equal((await resolver.reverse('192.0.2.11')).length > 0, true, 'reverse');

const base = 'http://127.0.0.1:8500';
const put = (path, body, headers) => fetch(base + path, { method: 'PUT', body: body && JSON.stringify(body), headers });
const definition = { ID: 'node-1', Name: 'node', Address: '192.0.2.50', Port: 3000, Check: { TTL: '30s' } };
// fetch says text/plain for a string body.
equal((await put('/v1/agent/service/register', definition)).status, 200, 'fetch registers, as text/plain');
equal((await put('/v1/agent/service/register', definition, { 'Content-Type': 'application/json' })).status, 200, 'and as application/json');
equal(await code(resolver.resolveSrv('node.service.consul')), 'ENODATA', 'not in DNS before its check passes');
equal((await put('/v1/agent/check/pass/service:node-1')).status, 200, 'pass');
equal((await resolver.resolveSrv('node.service.consul')).map(({ port }) => port), [3000], 'in DNS as soon as the pass is acknowledged');
const wait = await fetch(`${base}/v1/health/service/node?passing=true`);
equal((await wait.json())[0].Service.Port, 3000, 'health has it');
const index = wait.headers.get('x-consul-index');
const next = fetch(`${base}/v1/health/service/node?passing=true&index=${index}&wait=20s`);
const begun = performance.now();
equal((await put('/v1/agent/service/deregister/node-1')).status, 200, 'deregister');
equal(await (await next).json(), [], 'a blocking read wakes with nobody');
equal(performance.now() - begun < 1000, true, 'within a second');
equal(await code(resolver.resolveSrv('node.service.consul')), 'ENOTFOUND', 'and it is out of DNS');
process.exit(failed ? 1 : 0);
