//! Login with a token of others: JWTs by static keys, and by keys at a URL.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair,
};
use data_encoding::{BASE64, BASE64URL_NOPAD};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::acl::{Asks, controlled};
use crate::server::TestServer;

fn encode(octets: &[u8]) -> String {
    BASE64URL_NOPAD.encode(octets)
}

fn jwt(header: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let parts = [header, claims].map(|part| encode(part.to_string().as_bytes()));
    let signed = parts.join(".");
    let signature = sign(signed.as_bytes());
    format!("{signed}.{}", encode(&signature))
}

/// A SubjectPublicKeyInfo of a key: a prefix that tells its kind, then the key.
fn pem(prefix: &[u8], key: &[u8]) -> String {
    let body = BASE64.encode(&[prefix, key].concat());
    format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n")
}

const ED25519: &[u8] = &[0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
const P256: &[u8] = &[
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86,
    0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

fn seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn claims(more: Value) -> Value {
    let mut claims = json!({ "iss": "ci", "aud": ["rollcall"], "exp": seconds() + 600, "service": "web", "groups": ["ops"] });
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    claims
}

async fn set_up(server: &TestServer, root: &str, config: Value) {
    let mut whole = json!({ "BoundAudiences": ["rollcall"], "BoundIssuer": "ci", "JWTSupportedAlgs": ["EdDSA", "ES256", "RS256"],
        "ClaimMappings": { "service": "service" }, "ListClaimMappings": { "groups": "groups" } });
    whole.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
    let method = json!({ "Name": "ci", "Type": "jwt", "MaxTokenTTL": "1h", "Config": whole }).to_string();
    let made = server.with_token("PUT", "/v1/acl/auth-method", root, &method).await;
    assert_eq!(made.status, 200, "{}", made.text());
    let rule = json!({ "AuthMethod": "ci", "BindType": "service", "BindName": "${value.service}",
        "Selector": "\"ops\" in list.groups" })
    .to_string();
    let made = server.with_token("PUT", "/v1/acl/binding-rule", root, &rule).await;
    assert_eq!(made.status, 200, "{}", made.text());
}

async fn login(server: &TestServer, bearer: &str) -> (u16, Value) {
    let body = json!({ "AuthMethod": "ci", "BearerToken": bearer, "Meta": { "pod": "p1" } }).to_string();
    let answer = server.with_token("POST", "/v1/acl/login", "", &body).await;
    let value = serde_json::from_slice(&answer.body).unwrap_or_else(|_| Value::String(answer.text()));
    (answer.status, value)
}

async fn tokens(server: &TestServer, root: &str) -> usize {
    server.with_token("GET", "/v1/acl/tokens", root, "").await.json().as_array().unwrap().len()
}

#[tokio::test]
async fn a_workloads_token_becomes_a_scoped_one_and_ends_with_the_logout() {
    let (server, root) = controlled(false).await;
    let ed = Ed25519KeyPair::generate().unwrap();
    let ec = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
    let rsa = RsaKeyPair::generate(aws_lc_rs::rsa::KeySize::Rsa2048).unwrap();
    let rsa_info =
        aws_lc_rs::encoding::AsDer::<aws_lc_rs::encoding::PublicKeyX509Der<'_>>::as_der(rsa.public_key())
            .unwrap();
    let keys = [
        pem(ED25519, ed.public_key().as_ref()),
        pem(P256, ec.public_key().as_ref()),
        pem(&[], rsa_info.as_ref()),
    ];
    set_up(&server, &root, json!({ "JWTValidationPubKeys": keys })).await;
    let ed_sign = |m: &[u8]| ed.sign(m).as_ref().to_vec();
    let ec_sign = |m: &[u8]| ec.sign(&SystemRandom::new(), m).unwrap().as_ref().to_vec();
    let rsa_sign = |m: &[u8]| {
        let mut signature = vec![0; rsa.public_modulus_len()];
        rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), m, &mut signature).unwrap();
        signature
    };
    let good = [
        jwt(&json!({ "alg": "EdDSA", "typ": "JWT" }), &claims(json!({})), ed_sign),
        jwt(&json!({ "alg": "ES256" }), &claims(json!({})), ec_sign),
        jwt(&json!({ "alg": "RS256" }), &claims(json!({})), rsa_sign),
    ];
    let before = tokens(&server, &root).await;
    for bearer in &good {
        let (status, token) = login(&server, bearer).await;
        assert_eq!(status, 200, "{token}");
        assert_eq!(
            (&token["AuthMethod"], &token["ServiceIdentities"][0]["ServiceName"]),
            (&json!("ci"), &json!("web"))
        );
        assert_eq!(token["Description"], "token created via login: {\"pod\":\"p1\"}");
        assert!(token["ExpirationTime"].is_string() && token["Local"] == true, "{token}");
        let secret = token["SecretID"].as_str().unwrap();
        let register = async |name: &str| {
            let body = json!({ "Name": name }).to_string();
            server.with_token("PUT", "/v1/agent/service/register", secret, &body).await.status
        };
        assert_eq!((register("web").await, register("db").await), (200, 403));
        assert_eq!(server.with_token("POST", "/v1/acl/logout", secret, "").await.text(), "true");
        assert_eq!(register("web").await, 403);
    }
    assert_eq!(
        server.with_token("POST", "/v1/acl/logout", &root, "").await.status,
        403,
        "no token of a login"
    );
    // Whatever is wrong: 403, and nothing is made.
    let other = Ed25519KeyPair::generate().unwrap();
    let hmac = |m: &[u8]| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, keys[0].as_bytes());
        aws_lc_rs::hmac::sign(&key, m).as_ref().to_vec()
    };
    let (ed_dsa, none) = (json!({ "alg": "EdDSA" }), json!({ "alg": "none" }));
    for (what, bearer) in [
        ("alg none", jwt(&none, &claims(json!({})), |_| vec![])),
        ("alg none, signed", jwt(&none, &claims(json!({})), ed_sign)),
        ("HMAC with the public key", jwt(&json!({ "alg": "HS256" }), &claims(json!({})), hmac)),
        ("another's key", jwt(&ed_dsa, &claims(json!({})), |m| other.sign(m).as_ref().to_vec())),
        ("another algorithm", jwt(&json!({ "alg": "RS256" }), &claims(json!({})), ed_sign)),
        ("expired", jwt(&ed_dsa, &claims(json!({ "exp": seconds() - 1000 })), ed_sign)),
        ("not yet valid", jwt(&ed_dsa, &claims(json!({ "nbf": seconds() + 1000 })), ed_sign)),
        ("no times", jwt(&ed_dsa, &claims(json!({ "exp": "x" })), ed_sign)),
        ("wrong audience", jwt(&ed_dsa, &claims(json!({ "aud": "others" })), ed_sign)),
        ("wrong issuer", jwt(&ed_dsa, &claims(json!({ "iss": "me" })), ed_sign)),
        ("times that are no numbers", jwt(&ed_dsa, &claims(json!({ "nbf": "0" })), ed_sign)),
        ("a number for an audience", jwt(&ed_dsa, &claims(json!({ "aud": ["rollcall", 1] })), ed_sign)),
        ("a list for an issuer", jwt(&ed_dsa, &claims(json!({ "iss": ["ci"] })), ed_sign)),
        ("a list for a mapped claim", jwt(&ed_dsa, &claims(json!({ "service": ["web"] })), ed_sign)),
        ("not selected", jwt(&ed_dsa, &claims(json!({ "groups": [] })), ed_sign)),
        ("a name that would be rules", jwt(&ed_dsa, &claims(json!({ "service": "x\" {} acl" })), ed_sign)),
        ("no token", "abc".into()),
        ("a large one", "a".repeat(200_000)),
    ] {
        let (status, said) = login(&server, &bearer).await;
        assert_eq!(status, 403, "{what}: {said}");
        assert!(said.as_str().unwrap().starts_with("Permission denied"), "{what}: {said}");
    }
    // A reader that takes the first would see another service than one that takes the last.
    let text = claims(json!({})).to_string().replacen('{', "{\"service\":\"db\",", 1);
    let signed = format!("{}.{}", encode(ed_dsa.to_string().as_bytes()), encode(text.as_bytes()));
    let (status, said) = login(&server, &format!("{signed}.{}", encode(&ed_sign(signed.as_bytes())))).await;
    assert_eq!(
        (status, said),
        (403, json!("Permission denied: the token is no JWT: it makes a claim twice"))
    );
    let (_, said) = login(&server, &jwt(&ed_dsa, &claims(json!({ "exp": "x" })), ed_sign)).await;
    assert_eq!(said, "Permission denied: claim \"exp\" is no number");
    assert_eq!(tokens(&server, &root).await, before);
    // With the method go its rules and tokens.
    let (_, token) = login(&server, &good[0]).await;
    assert_eq!(server.with_token("DELETE", "/v1/acl/auth-method/ci", &root, "").await.text(), "true");
    assert_eq!(server.with_token("GET", "/v1/acl/binding-rules", &root, "").await.json(), json!([]));
    let gone = server.with_token("GET", "/v1/acl/token/self", token["SecretID"].as_str().unwrap(), "").await;
    assert_eq!((gone.status, tokens(&server, &root).await), (403, before));
    let (status, said) = login(&server, &good[0]).await;
    assert_eq!((status, said.as_str().unwrap()), (403, "ACL not found: auth method \"ci\" not found"));
}

#[tokio::test]
async fn methods_and_rules_that_cannot_be_are_refused() {
    let (server, root) = controlled(false).await;
    let method = |kind: &str, config: Value| json!({ "Name": "m", "Type": kind, "Config": config });
    for (path, body, text) in [
        ("/v1/acl/auth-method", method("oidc", json!({})), "should be \"jwt\""),
        ("/v1/acl/auth-method", method("jwt", json!({})), "exactly one of"),
        (
            "/v1/acl/auth-method",
            method("jwt", json!({ "JWKSURL": "https://x/", "JWTSupportedAlgs": ["HS256"] })),
            "unsupported algorithm",
        ),
        ("/v1/acl/auth-method", json!({ "Name": "a b", "Type": "jwt" }), "invalid Name"),
        (
            "/v1/acl/binding-rule",
            json!({ "AuthMethod": "m", "BindType": "service", "BindName": "x" }),
            "auth method \"m\" not found",
        ),
        (
            "/v1/acl/binding-rule",
            json!({ "AuthMethod": "m", "BindType": "x", "BindName": "x" }),
            "unknown BindType \"x\"",
        ),
        (
            "/v1/acl/binding-rule",
            json!({ "AuthMethod": "m", "BindType": "role", "BindName": "${x}" }),
            "invalid BindName",
        ),
        (
            "/v1/acl/binding-rule",
            json!({ "AuthMethod": "m", "BindType": "role", "BindName": "x", "Selector": "x ==" }),
            "invalid Selector",
        ),
    ] {
        let answer = server.with_token("PUT", path, &root, &body.to_string()).await;
        assert!(
            answer.status == 500 && answer.text().contains(text),
            "{body}: {} {}",
            answer.status,
            answer.text()
        );
    }
}

/// A server of keys over TLS, whose certificate is by nobody that the system knows.
async fn key_server(set: Arc<parking_lot::Mutex<Value>>, asked: Arc<AtomicUsize>) -> (u16, String) {
    key_server_telling(set, asked, Arc::default()).await
}

/// The same, and the last request as it came.
async fn key_server_telling(
    set: Arc<parking_lot::Mutex<Value>>,
    asked: Arc<AtomicUsize>,
    told: Arc<parking_lot::Mutex<String>>,
) -> (u16, String) {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let (chain, key) = (vec![certified.cert.der().clone()], certified.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config =
        rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(chain, key.try_into().unwrap()).unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut buffer = [0; 4096];
            let length = stream.read(&mut buffer).await.unwrap_or(0);
            *told.lock() = String::from_utf8_lossy(&buffer[..length]).to_ascii_lowercase();
            asked.fetch_add(1, Ordering::SeqCst);
            // Of a list, each request gets the next, and the last goes on.
            let body = {
                let mut set = set.lock();
                match set.as_array_mut() {
                    Some(list) if list.len() > 1 => list.remove(0),
                    Some(list) => list[0].clone(),
                    None => set.clone(),
                }
            };
            // A text is a place to which it redirects, a number the status.
            let head = match &body {
                Value::String(location) => format!("302 Found\r\nLocation: {location}"),
                Value::Number(status) => format!("{status} Not Now"),
                _ => "200 OK".to_owned(),
            };
            let body = body.to_string();
            let answer = format!(
                "HTTP/1.1 {head}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, certified.cert.pem())
}

#[tokio::test]
async fn keys_at_a_url_are_fetched_kept_and_not_asked_for_without_end() {
    let (server, root) = controlled(false).await;
    let (ed, later) = (Ed25519KeyPair::generate().unwrap(), Ed25519KeyPair::generate().unwrap());
    let jwk = |key: &Ed25519KeyPair, id: &str| json!({ "kty": "OKP", "crv": "Ed25519", "kid": id, "x": encode(key.public_key().as_ref()) });
    let set = Arc::new(parking_lot::Mutex::new(json!({ "keys": [jwk(&ed, "one")] })));
    let asked = Arc::new(AtomicUsize::new(0));
    let (port, ca) = key_server(set.clone(), asked.clone()).await;
    set_up(&server, &root, json!({ "JWKSURL": format!("https://localhost:{port}/keys"), "JWKSCACert": ca }))
        .await;
    let bearer = |key: &Ed25519KeyPair, id: &str| {
        jwt(&json!({ "alg": "EdDSA", "kid": id }), &claims(json!({})), |m| key.sign(m).as_ref().to_vec())
    };
    for _ in 0..3 {
        let (status, said) = login(&server, &bearer(&ed, "one")).await;
        assert_eq!(status, 200, "{said}");
    }
    assert_eq!(asked.load(Ordering::SeqCst), 1, "kept");
    // A key that nobody has: looked for once at most in a while, however often it is named.
    *set.lock() = json!({ "keys": [jwk(&ed, "one"), jwk(&later, "two")] });
    for i in 0..20 {
        assert_eq!(login(&server, &bearer(&later, &format!("x{i}"))).await.0, 403);
    }
    assert!(asked.load(Ordering::SeqCst) <= 2, "{asked:?}");
    // Without the authority's certificate it is nobody's server.
    let method = json!({ "Name": "other", "Type": "jwt", "Config": { "JWKSURL": format!("https://localhost:{port}/keys") } });
    assert_eq!(server.with_token("PUT", "/v1/acl/auth-method", &root, &method.to_string()).await.status, 200);
    let body = json!({ "AuthMethod": "other", "BearerToken": bearer(&ed, "one") }).to_string();
    let answer = server.with_token("POST", "/v1/acl/login", "", &body).await;
    assert_eq!(answer.status, 503, "{}", answer.text());
}

#[tokio::test]
async fn a_server_of_keys_is_judged_as_a_target_of_checks_is_and_leads_nowhere_else() {
    let ed = Ed25519KeyPair::generate().unwrap();
    let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": encode(ed.public_key().as_ref()) }] });
    let bearer = jwt(&json!({ "alg": "EdDSA" }), &claims(json!({})), |m| ed.sign(m).as_ref().to_vec());
    let asked = [0, 1].map(|_| Arc::new(AtomicUsize::new(0)));
    let sets = [keys.clone(), keys].map(|set| Arc::new(parking_lot::Mutex::new(set)));
    let (port, ca) = key_server(sets[0].clone(), asked[0].clone()).await;
    let (other, _) = key_server(sets[1].clone(), asked[1].clone()).await;
    let url = format!("https://localhost:{port}/keys");
    let net = |text: &str| text.parse().unwrap();
    for (range, status, times) in
        [(Some("127.0.0.0/8"), 503, 0), (Some("192.0.2.0/24"), 200, 1), (None, 503, 1)]
    {
        let server = TestServer::with(|config| {
            config.acl.enabled = true;
            config.acl.initial_management = Some(rollcall::model::Secret::new("root"));
            // IPv6's is denied always: nobody listens there.
            config.checks.targets.deny = range.into_iter().chain(["::1/128"]).map(net).collect();
            // What checks are narrowed to does not count.
            config.checks.targets.allow = vec![net("198.51.100.0/24")];
        })
        .await;
        if range.is_none() {
            *sets[0].lock() = json!(format!("https://localhost:{other}/keys"));
        }
        set_up(&server, "root", json!({ "JWKSURL": url, "JWKSCACert": ca })).await;
        let before = asked[0].load(Ordering::SeqCst);
        let (got, said) = login(&server, &bearer).await;
        assert_eq!(got, status, "{range:?}: {said}");
        assert_eq!(asked[0].load(Ordering::SeqCst) - before, times, "{range:?}");
        if status == 503 {
            assert_eq!(
                said, "the keys of auth method \"ci\" cannot be had",
                "no address is told to a stranger"
            );
        }
    }
    assert_eq!(asked[1].load(Ordering::SeqCst), 0, "no redirect is followed");
}

/// What a server of keys cannot do for a moment is tried again within the same login, and no more than that; and it is told the trace.
#[tokio::test]
async fn a_server_of_keys_is_asked_again_where_that_may_help_and_told_the_trace() {
    let collector = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let endpoint = format!("http://{}", collector.local_addr().unwrap());
    let server = TestServer::with(|config| {
        config.acl.enabled = true;
        config.acl.initial_management = Some(rollcall::model::Secret::new("root"));
        config.otlp.endpoint = Some(endpoint.parse().unwrap());
    })
    .await;
    let ed = Ed25519KeyPair::generate().unwrap();
    let keys = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "x": encode(ed.public_key().as_ref()) }] });
    let bearer = jwt(&json!({ "alg": "EdDSA" }), &claims(json!({})), |m| ed.sign(m).as_ref().to_vec());
    let set = Arc::new(parking_lot::Mutex::new(json!([503, 429, keys])));
    let (asked, told) = (Arc::new(AtomicUsize::new(0)), Arc::default());
    let (port, ca) = key_server_telling(set.clone(), asked.clone(), Arc::clone(&told)).await;
    let url = |path: &str| format!("https://localhost:{port}/{path}");
    set_up(&server, "root", json!({ "JWKSURL": url("keys"), "JWKSCACert": ca })).await;
    let move_to = async |path: &str| {
        let config = json!({ "BoundAudiences": ["rollcall"], "BoundIssuer": "ci", "JWTSupportedAlgs": ["EdDSA"],
            "ClaimMappings": { "service": "service" }, "ListClaimMappings": { "groups": "groups" },
            "JWKSURL": url(path), "JWKSCACert": ca });
        let method =
            json!({ "Name": "ci", "Type": "jwt", "MaxTokenTTL": "1h", "Config": config }).to_string();
        let moved = server.with_token("PUT", "/v1/acl/auth-method/ci", "root", &method).await;
        assert_eq!(moved.status, 200, "{}", moved.text());
    };
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let body = json!({ "AuthMethod": "ci", "BearerToken": bearer }).to_string();
    let headers =
        [("traceparent", format!("00-{trace}-00f067aa0ba902b7-01")), ("tracestate", "rojo=1".to_owned())];
    let mut request = format!(
        "POST /v1/acl/login HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    let mut stream = tokio::net::TcpStream::connect(server.http()).await.unwrap();
    stream.write_all(format!("{request}\r\n{body}").as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert_eq!(asked.load(Ordering::SeqCst), 3);
    let last = told.lock().clone();
    assert!(
        last.contains(&format!("\r\ntraceparent: 00-{trace}-"))
            && last.contains("\r\ntracestate: rojo=1\r\n"),
        "{last}"
    );
    assert!(!last.contains("-00f067aa0ba902b7-"), "of a span of ours: {last}");
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("rollcall_outbound_retries_total{to=\"keys\"} 2\n"), "{metrics}");

    // It goes on so: three tries, and then nobody knocks for a while.
    *set.lock() = json!(503);
    move_to("others").await;
    for _ in 0..5 {
        assert_eq!(login(&server, &bearer).await.0, 503);
    }
    assert_eq!(asked.load(Ordering::SeqCst), 6);
    let metrics = server.get("/metrics").await.text();
    assert!(metrics.contains("rollcall_outbound_withheld_total{to=\"keys\"} 4\n"), "{metrics}");

    // What no other moment changes is not tried again.
    *set.lock() = json!(404);
    move_to("none").await;
    assert_eq!(login(&server, &bearer).await.0, 503);
    assert_eq!(asked.load(Ordering::SeqCst), 7);
}
