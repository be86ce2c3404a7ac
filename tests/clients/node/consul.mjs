// The npm package `consul`, through its whole discovery surface, against a server on this machine with two live targets
// of `web`.  node consul.mjs HOST PORT FOLDER-WITH-NODE_MODULES
import { createRequire } from 'node:module';
import { isDeepStrictEqual } from 'node:util';

const [host, port, folder] = process.argv.slice(2);
const Consul = createRequire(`${folder}/`)('consul');
const client = new Consul({ host, port: Number(port) });

let failed = 0;
function equal(got, wanted, what) {
  if (isDeepStrictEqual(got, wanted)) {
    console.log(`ok    ${what}`);
  } else {
    failed += 1;
    console.log(`FAIL  ${what}: got ${JSON.stringify(got)}, wanted ${JSON.stringify(wanted)}`);
  }
}
async function refused(promise, status, part, what) {
  try {
    await promise;
    equal('no error', status, what);
  } catch (error) {
    equal([error.response?.statusCode, String(error.response?.body).includes(part)], [status, true], `${what} (${error.message})`);
  }
}
const ids = (entries) => entries.map((entry) => entry.Service.ID).sort();
const passing = async (service) => ids(await client.health.service({ service, passing: true }));

async function agent() {
  const { agent } = client;
  equal((await agent.self()).Config.NodeName, 'n1', 'agent.self');
  await agent.service.register({
    name: 'cache', id: 'cache-1', address: '192.0.2.60', port: 6379, tags: ['a', 'b'], meta: { version: '7' },
    check: { ttl: '30s', notes: 'a note' },
  });
  const { 'cache-1': one } = await agent.services();
  equal([one.Service, one.Port, one.Tags, one.Meta], ['cache', 6379, ['a', 'b'], { version: '7' }], 'agent.service.register and list');
  equal((await agent.checks())['service:cache-1'].Status, 'critical', 'agent.checks: a TTL check begins critical');
  for (const [verb, status] of [['pass', 'passing'], ['warn', 'warning'], ['fail', 'critical']]) {
    await agent.check[verb]({ id: 'service:cache-1', note: `now ${status}` });
    const { Status, Output } = (await agent.checks())['service:cache-1'];
    equal([Status, Output], [status, `now ${status}`], `agent.check.${verb}`);
  }
  await agent.check.register({ name: 'more', id: 'more-1', serviceid: 'cache-1', tcp: '192.0.2.31:9001', interval: '10s', notes: 'noted' });
  equal((await agent.check.list())['more-1'].Notes, 'noted', 'agent.check.register and list');
  await agent.check.deregister('more-1');
  equal('more-1' in (await agent.checks()), false, 'agent.check.deregister');
  await agent.check.pass('service:cache-1');
  await agent.service.maintenance({ id: 'cache-1', enable: true, reason: 'disk' });
  equal(await passing('cache'), [], 'agent.service.maintenance on');
  await agent.service.maintenance({ id: 'cache-1', enable: false });
  await agent.maintenance({ enable: true, reason: 'power' });
  equal(await passing('cache'), [], 'agent.maintenance on');
  await agent.maintenance(false);
  equal(await passing('cache'), ['cache-1'], 'and both off');
  await refused(agent.service.deregister('nobody'), 404, 'Unknown service ID "nobody"', 'deregistration of nobody');
  await refused(agent.check.pass('nobody'), 404, 'Unknown check ID "nobody"', 'pass of an unknown check');
}

async function catalog() {
  const { catalog } = client;
  equal(await catalog.datacenters(), ['dc1'], 'catalog.datacenters');
  await catalog.register({
    node: 'printer', address: '192.0.2.90', service: { service: 'lp', id: 'lp-1', port: 631, tags: ['ink'] },
    check: { node: 'printer', checkid: 'lp', name: 'lp', status: 'passing', serviceid: 'lp-1' },
  });
  equal((await catalog.nodes()).some(({ Node }) => Node === 'printer'), true, 'catalog.register and nodes');
  equal((await catalog.services()).lp, ['ink'], 'catalog.services');
  equal((await catalog.service.nodes('lp')).map(({ Node, ServicePort }) => [Node, ServicePort]), [['printer', 631]], 'catalog.service.nodes');
  equal((await catalog.service.nodes({ service: 'web', tag: 'live' })).length, 2, 'catalog.service.nodes by tag');
  equal(Object.keys((await catalog.node.services('printer')).Services), ['lp-1'], 'catalog.node.services');
  equal(await passing('lp'), ['lp-1'], 'health.service of it');
  await catalog.deregister({ node: 'printer', serviceid: 'lp-1' });
  equal(await catalog.service.nodes('lp'), [], 'catalog.deregister of a service');
  await catalog.deregister('printer');
  equal((await catalog.nodes()).some(({ Node }) => Node === 'printer'), false, 'catalog.deregister of a node');
  await refused(catalog.nodes({ dc: 'nowhere' }), 500, 'No path to datacenter', 'an unknown datacenter');
}

async function health() {
  const { health } = client;
  equal(await passing('web'), ['web-1', 'web-2'], 'health.service');
  equal(ids(await health.service({ service: 'web', tag: 'live', stale: true })), ['web-1', 'web-2'], 'health.service by tag, stale');
  equal((await health.checks('web')).map(({ Status }) => Status), ['passing', 'passing'], 'health.checks');
  const states = (await health.state('passing')).map(({ CheckID }) => CheckID);
  equal(['service:web-1', 'service:web-2'].every((id) => states.includes(id)), true, 'health.state');
  const [{ Node: { Node: node } }] = await health.service('web');
  equal((await health.node(node)).some(({ CheckID }) => CheckID === 'service:web-1'), true, 'health.node');
}

async function filters() {
  equal(ids(await client.health.service({ service: 'web', filter: 'Service.ID == "web-1"' })), ['web-1'], 'health.service with a filter');
  equal((await client.catalog.service.nodes({ service: 'web', filter: 'ServicePort == 9002' })).length, 1, 'catalog.service.nodes with a filter');
  equal(Object.keys(await client.agent.services({ filter: '"a" in Tags' })), ['cache-1'], 'agent.services with a filter');
  await refused(client.catalog.nodes({ filter: 'Node ==' }), 500, 'Failed to create boolean expression', 'a filter that cannot be parsed');
}

async function about() {
  equal((await client.agent.members()).map(({ Name, Status }) => [Name, Status]), [['n1', 1]], 'agent.members');
  await client.agent.reload();
  await refused(client.agent.forceLeave('nobody'), 500, 'No node found', 'agent.forceLeave of nobody');
}

async function queries() {
  const { query } = client;
  const wanted = { name: 'live-web', service: { service: 'web', tags: ['live'], onlypassing: true }, dns: { ttl: '3s' } };
  const { ID } = await query.create(wanted);
  equal(ID.length, 36, 'query.create');
  equal((await query.list()).map(({ Name }) => Name), ['live-web'], 'query.list');
  equal((await query.get(ID)).Service.Tags, ['live'], 'query.get');
  for (const name of [ID, 'live-web']) {
    const { Nodes, DNS } = await query.execute(name);
    equal([ids(Nodes), DNS.TTL], [['web-1', 'web-2'], '3s'], `query.execute by its ${name === ID ? 'id' : 'name'}`);
  }
  // This client looks for a list in the answer, which is an object with Consul too.
  equal(await query.explain('live-web'), undefined, 'query.explain succeeds');
  await query.update({ query: ID, ...wanted, service: { service: 'web', tags: ['dead'] } });
  equal((await query.execute('live-web')).Nodes, [], 'query.update: nobody has the other tag');
  await query.destroy(ID);
  equal(await query.list(), [], 'query.destroy');
}

// The package's own watch: a loop of blocking reads.
async function killedTarget() {
  const watch = client.watch({ method: client.health.service, options: { service: 'web', passing: true, wait: '30s' } });
  const left = await new Promise((resolve, reject) => {
    watch.on('change', (entries) => {
      if (entries.length === 2) console.log('watching, kill web-2');
      else resolve(ids(entries));
    });
    watch.on('error', reject);
  });
  watch.end();
  equal(left, ['web-1'], 'the watch woke without the killed target');
  const dead = (await client.health.checks('web')).find(({ CheckID }) => CheckID === 'service:web-2');
  equal(dead.Status, 'critical', 'whose check is critical');
}

async function end() {
  await client.agent.service.deregister('cache-1');
  equal('cache-1' in (await client.agent.services()), false, 'agent.service.deregister');
  equal((await client.status.leader()).length > 0, true, 'status.leader');
  equal((await client.status.peers()).length, 1, 'status.peers');
}

for (const part of [agent, catalog, health, filters, about, queries, killedTarget, end]) await part();
process.exit(failed ? 1 : 0);
