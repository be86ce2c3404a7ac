// JNDI's DNS provider against Rollcall (SRV, A, AAAA, negative answers, a large answer over TCP), and registration
// with java.net.http. Run as `java Client.java`.

import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.util.ArrayList;
import java.util.Collections;
import java.util.Hashtable;
import java.util.List;
import java.util.Objects;
import javax.naming.Context;
import javax.naming.NameNotFoundException;
import javax.naming.NamingEnumeration;
import javax.naming.directory.Attribute;
import javax.naming.directory.DirContext;
import javax.naming.directory.InitialDirContext;

public class Client {
    static int failed = 0;

    static void equal(Object got, Object wanted, String what) {
        if (Objects.equals(got, wanted)) {
            System.out.println("ok    " + what);
        } else {
            failed += 1;
            System.out.println("FAIL  " + what + ": got " + got + ", wanted " + wanted);
        }
    }

    /** The records as text, sorted; null when the name has none of the type; "NXDOMAIN" when there is no such name. */
    static List<String> lookup(DirContext dns, String name, String type) throws Exception {
        try {
            Attribute found = dns.getAttributes(name, new String[] {type}).get(type);
            if (found == null) {
                return null;
            }
            List<String> texts = new ArrayList<>();
            NamingEnumeration<?> all = found.getAll();
            while (all.hasMore()) {
                texts.add(all.next().toString());
            }
            Collections.sort(texts);
            return texts;
        } catch (NameNotFoundException none) {
            return List.of("NXDOMAIN");
        }
    }

    static int put(HttpClient http, String path, String body) throws Exception {
        HttpRequest request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:8500" + path))
                .PUT(HttpRequest.BodyPublishers.ofString(body)).build();
        return http.send(request, HttpResponse.BodyHandlers.ofString()).statusCode();
    }

    public static void main(String[] args) throws Exception {
        Hashtable<String, String> env = new Hashtable<>();
        env.put(Context.INITIAL_CONTEXT_FACTORY, "com.sun.jndi.dns.DnsContextFactory");
        env.put(Context.PROVIDER_URL, "dns://127.0.0.1:8600");
        env.put("com.sun.jndi.dns.timeout.initial", "2000");
        DirContext dns = new InitialDirContext(env);

        for (String name : List.of("web.service.consul", "_web._tcp.service.internal", "v1.web.service.consul")) {
            List<String> found = lookup(dns, name, "SRV");
            equal(found == null ? null : found.size(), 2, name + " SRV has two records");
            List<String> ends = new ArrayList<>();
            for (String one : found == null ? List.<String>of() : found) {
                String[] words = one.split(" ");
                ends.add(words[0] + " " + words[1] + " " + words[2] + " " + lookup(dns, words[3], "A"));
            }
            Collections.sort(ends);
            equal(ends, List.of("1 1 8001 [192.0.2.11]", "1 5 8002 [192.0.2.12]"), name + ": its targets resolve");
        }
        equal(lookup(dns, "web.service.consul", "A"), List.of("192.0.2.11", "192.0.2.12"), "A");
        equal(lookup(dns, "six.service.consul", "AAAA"), List.of("2001:db8::66"), "AAAA");
        equal(lookup(dns, "six.service.consul", "A"), null, "A of a service with IPv6 only is no data");
        equal(lookup(dns, "idle.service.consul", "A"), null, "nobody healthy is no data");
        equal(lookup(dns, "nobody.service.consul", "A"), List.of("NXDOMAIN"), "an unknown service is NXDOMAIN");
        List<String> many = lookup(dns, "many.service.consul", "SRV");
        equal(many == null ? 0 : many.size(), 120, "a large SRV answer is complete, over TCP");

        HttpClient http = HttpClient.newHttpClient();
        equal(put(http, "/v1/agent/service/register",
                "{\"ID\":\"java-1\",\"Name\":\"java\",\"Address\":\"192.0.2.60\",\"Port\":8080,\"Check\":{\"TTL\":\"30s\"}}"),
                200, "java.net.http registers (and offers HTTP/2, which is not taken up)");
        equal(put(http, "/v1/agent/check/pass/service:java-1", ""), 200, "pass");
        equal(lookup(dns, "java.service.consul", "A"), List.of("192.0.2.60"), "in DNS as soon as the pass is acknowledged");
        equal(put(http, "/v1/agent/service/deregister/java-1", ""), 200, "deregister");
        equal(lookup(dns, "java.service.consul", "A"), List.of("NXDOMAIN"), "and out of DNS");
        System.exit(failed > 0 ? 1 : 0);
    }
}
