// Kiwi's consul-client, through its whole discovery surface, against a server on this machine with two live targets of
// `web`.  java -cp 'FOLDER/*' ConsulClient.java HOST PORT
import com.google.common.net.HostAndPort;
import java.util.List;
import java.util.Objects;
import java.util.TreeSet;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.kiwiproject.consul.Consul;
import org.kiwiproject.consul.ConsulException;
import org.kiwiproject.consul.NotRegisteredException;
import org.kiwiproject.consul.cache.ServiceHealthCache;
import org.kiwiproject.consul.model.State;
import org.kiwiproject.consul.model.agent.ImmutableCheck;
import org.kiwiproject.consul.model.agent.ImmutableRegistration;
import org.kiwiproject.consul.model.agent.Registration;
import org.kiwiproject.consul.model.catalog.ImmutableCatalogDeregistration;
import org.kiwiproject.consul.model.catalog.ImmutableCatalogRegistration;
import org.kiwiproject.consul.model.health.HealthCheck;
import org.kiwiproject.consul.model.health.ImmutableService;
import org.kiwiproject.consul.model.health.ServiceHealth;
import org.kiwiproject.consul.model.query.ImmutableDnsQuery;
import org.kiwiproject.consul.model.query.ImmutablePreparedQuery;
import org.kiwiproject.consul.model.query.ImmutableServiceQuery;
import org.kiwiproject.consul.option.ImmutableQueryOptions;
import org.kiwiproject.consul.option.Options;

public class ConsulClient {
    static int failed = 0;

    static void equal(Object got, Object wanted, String what) {
        if (Objects.equals(got, wanted)) {
            System.out.println("ok    " + what);
        } else {
            failed++;
            System.out.println("FAIL  " + what + ": got " + got + ", wanted " + wanted);
        }
    }

    static void refused(Runnable call, int status, String part, String what) {
        try {
            call.run();
            equal("no error", status, what);
        } catch (ConsulException error) {
            equal(error.getCode() == status && error.getMessage().contains(part), true, what + " (" + error.getMessage().trim() + ")");
        }
    }

    static TreeSet<String> ids(List<ServiceHealth> entries) {
        var found = new TreeSet<String>();
        entries.forEach(entry -> found.add(entry.getService().getId()));
        return found;
    }

    static TreeSet<String> set(String... names) {
        return new TreeSet<>(List.of(names));
    }

    static TreeSet<String> passing(Consul client, String service) {
        return ids(client.healthClient().getHealthyServiceInstances(service).getResponse());
    }

    static void agent(Consul client) throws Exception {
        var agent = client.agentClient();
        agent.ping();
        agent.register(ImmutableRegistration.builder().name("cache").id("cache-1").address("192.0.2.60").port(6379)
                .addTags("a", "b").putMeta("version", "7").check(Registration.RegCheck.ttl(30)).build());
        equal(agent.isRegistered("cache-1"), true, "register and isRegistered");
        var one = agent.getServices().get("cache-1");
        equal(one.getService() + " " + one.getPort() + " " + one.getTags() + " " + one.getMeta(), "cache 6379 [a, b] {version=7}", "getServices");
        var full = agent.getService("cache-1", Options.BLANK_QUERY_OPTIONS).getResponse();
        equal(full.getService() + " " + !full.getContentHash().isEmpty(), "cache true", "getService, with a hash");
        try {
            agent.getService("nobody", Options.BLANK_QUERY_OPTIONS);
            equal("no error", NotRegisteredException.class, "getService of nobody");
        } catch (NotRegisteredException error) {
            equal(true, true, "getService of nobody");
        }
        equal(agent.getChecks().get("service:cache-1").getStatus(), "critical", "getChecks: a TTL check begins critical");
        agent.pass("cache-1", "now passing");
        equal(status(client), "passing now passing", "pass");
        agent.warn("cache-1", "now warning");
        equal(status(client), "warning now warning", "warn");
        agent.fail("cache-1", "now critical");
        equal(status(client), "critical now critical", "fail");
        agent.registerCheck(ImmutableCheck.builder().id("more-1").name("more").tcp("192.0.2.31:9001").interval("10s")
                .serviceId("cache-1").notes("noted").build());
        equal(agent.getChecks().get("more-1").getNotes(), java.util.Optional.of("noted"), "registerCheck");
        agent.deregisterCheck("more-1");
        equal(agent.getChecks().containsKey("more-1"), false, "deregisterCheck");
        agent.passCheck("service:cache-1");
        agent.toggleMaintenanceMode("cache-1", true, "disk");
        equal(passing(client, "cache"), set(), "toggleMaintenanceMode on");
        agent.toggleMaintenanceMode("cache-1", false);
        equal(passing(client, "cache"), set("cache-1"), "toggleMaintenanceMode off");
        refused(() -> agent.deregister("nobody"), 404, "Unknown service ID \"nobody\"", "deregister of nobody");
    }

    static String status(Consul client) {
        HealthCheck check = client.agentClient().getChecks().get("service:cache-1");
        return check.getStatus() + " " + check.getOutput().orElse("");
    }

    static void catalog(Consul client) {
        var catalog = client.catalogClient();
        equal(catalog.getDatacenters(), List.of("dc1"), "getDatacenters");
        catalog.register(ImmutableCatalogRegistration.builder().node("printer").address("192.0.2.90")
                .service(ImmutableService.builder().service("lp").id("lp-1").port(631).address("192.0.2.90").addTags("ink").build()).build());
        equal(catalog.getNodes().getResponse().stream().anyMatch(node -> node.getNode().equals("printer")), true, "catalog register and getNodes");
        equal(catalog.getServices().getResponse().get("lp"), List.of("ink"), "getServices");
        var found = catalog.getService("lp").getResponse();
        equal(found.size() + " " + found.get(0).getNode() + " " + found.get(0).getServicePort(), "1 printer 631", "getService");
        var live = ImmutableQueryOptions.builder().addTag("live").build();
        equal(catalog.getService("web", live).getResponse().size(), 2, "getService by tag");
        equal(catalog.getNode("printer").getResponse().getServices().keySet(), java.util.Set.of("lp-1"), "getNode");
        equal(passing(client, "lp"), set("lp-1"), "health of it");
        catalog.deregister(ImmutableCatalogDeregistration.builder().node("printer").serviceId("lp-1").build());
        equal(catalog.getService("lp").getResponse(), List.of(), "catalog deregister of a service");
        catalog.deregister(ImmutableCatalogDeregistration.builder().node("printer").build());
        equal(catalog.getNodes().getResponse().stream().anyMatch(node -> node.getNode().equals("printer")), false, "and of a node");
        var nowhere = ImmutableQueryOptions.builder().datacenter("nowhere").build();
        refused(() -> catalog.getNodes(nowhere), 500, "No path to datacenter", "an unknown datacenter");
    }

    static void health(Consul client) {
        var health = client.healthClient();
        equal(passing(client, "web"), set("web-1", "web-2"), "getHealthyServiceInstances");
        var all = health.getAllServiceInstances("web");
        equal(ids(all.getResponse()), set("web-1", "web-2"), "getAllServiceInstances");
        equal(all.isKnownLeader() && all.getIndex().signum() > 0, true, "with an index and a leader");
        equal(health.getServiceChecks("web").getResponse().size(), 2, "getServiceChecks");
        equal(health.getChecksByState(State.PASS).getResponse().stream().anyMatch(check -> check.getCheckId().equals("service:web-1")), true, "getChecksByState");
        var node = all.getResponse().get(0).getNode().getNode();
        equal(health.getNodeChecks(node).getResponse().stream().anyMatch(check -> check.getCheckId().equals("service:web-2")), true, "getNodeChecks");
    }

    static void filters(Consul client) {
        var first = ImmutableQueryOptions.builder().filter("Service.ID == \"web-1\"").build();
        equal(ids(client.healthClient().getAllServiceInstances("web", first).getResponse()), set("web-1"), "getAllServiceInstances with a filter");
        var second = ImmutableQueryOptions.builder().filter("ServicePort == 9002").build();
        equal(client.catalogClient().getService("web", second).getResponse().size(), 1, "getService with a filter");
        var tagged = ImmutableQueryOptions.builder().filter("\"a\" in Tags").build();
        equal(client.agentClient().getServices(tagged).keySet(), set("cache-1"), "agent getServices with a filter");
        var broken = ImmutableQueryOptions.builder().filter("Node ==").build();
        refused(() -> client.catalogClient().getNodes(broken), 500, "Failed to create boolean expression", "a filter that cannot be parsed");
    }

    static void about(Consul client) {
        var self = client.agentClient().getAgent();
        equal(self.getConfig().getNodeName() + " " + self.getMember().getName(), "n1 n1", "getAgent");
        var members = client.agentClient().getMembers();
        equal(members.size() + " " + members.get(0).getName() + " " + members.get(0).getStatus(), "1 n1 1", "getMembers");
        refused(() -> client.agentClient().forceLeave("nobody"), 500, "No node found", "forceLeave of nobody");
    }

    static void queries(Consul client) {
        var queries = client.preparedQueryClient();
        var service = ImmutableServiceQuery.builder().service("web").onlyPassing(true).tags(List.of("live")).build();
        var id = queries.createPreparedQuery(ImmutablePreparedQuery.builder().name("live-web").service(service)
                .dns(ImmutableDnsQuery.builder().ttl("3s").build()).build());
        equal(id.length(), 36, "createPreparedQuery");
        equal(queries.getPreparedQueries().size(), 1, "getPreparedQueries");
        var stored = queries.getPreparedQuery(id).orElseThrow();
        equal(stored.getName() + " " + stored.getService().getService() + " " + stored.getDns().getTtl(), "live-web web 3s", "getPreparedQuery");
        equal(ids(queries.execute("live-web").nodes()), set("web-1", "web-2"), "execute");
        queries.deletePreparedQuery(id);
        equal(queries.getPreparedQueries().size(), 0, "deletePreparedQuery");
    }

    /** The client's own cache: a loop of blocking reads. */
    static void killedTarget(Consul client) throws Exception {
        var states = new LinkedBlockingQueue<TreeSet<String>>();
        try (var cache = ServiceHealthCache.newCache(client.healthClient(), "web", true, 8, Options.BLANK_QUERY_OPTIONS)) {
            cache.addListener(entries -> states.add(ids(List.copyOf(entries.values()))));
            cache.start();
            equal(states.poll(20, TimeUnit.SECONDS), set("web-1", "web-2"), "the cache has both targets");
            System.out.println("watching, kill web-2");
            equal(states.poll(20, TimeUnit.SECONDS), set("web-1"), "the cache woke without the killed target");
        }
        var dead = client.healthClient().getServiceChecks("web").getResponse().stream().filter(check -> check.getCheckId().equals("service:web-2"));
        equal(dead.findFirst().orElseThrow().getStatus(), "critical", "whose check is critical");
    }

    static void end(Consul client) {
        client.agentClient().deregister("cache-1");
        equal(client.agentClient().isRegistered("cache-1"), false, "deregister");
        equal(client.statusClient().getLeader().isEmpty(), false, "getLeader");
        equal(client.statusClient().getPeers().size(), 1, "getPeers");
    }

    public static void main(String[] words) throws Exception {
        var client = Consul.builder().withHostAndPort(HostAndPort.fromParts(words[0], Integer.parseInt(words[1]))).build();
        agent(client);
        catalog(client);
        health(client);
        filters(client);
        about(client);
        queries(client);
        killedTarget(client);
        end(client);
        client.destroy();
        System.exit(failed > 0 ? 1 : 0);
    }
}
