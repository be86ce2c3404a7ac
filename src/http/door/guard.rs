//! A browser must not be usable against the API.
//!
//! A page can make its visitor's browser send requests here. It cannot read the answers without CORS,
//! which we never grant; it could write, and by DNS rebinding (its own name, pointed at our address)
//! it could read as well. So the Host must be an address or a name of ours, and a write that says it
//! comes from another page's origin is refused.
//!
//! Where rebinding cannot be, any Host will do: over TLS the certificate says whose name it is, and no page leads to a
//! Unix socket, whose clients write into Host what they like (Go's writes the path).

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Instant;

use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, Method, StatusCode, header};

use super::admission;
use super::caller::{Over, Peer};
use crate::http::error::Error;
use crate::http::{Config, State};
use crate::pace::Rate;

/// Lets a request through, or refuses it.
pub(in crate::http) fn let_in(state: &State, request: &mut Request) -> Result<(), Error> {
    let config = state.config.load();
    let peer = request.extensions().get::<ConnectInfo<Peer>>();
    let over = peer.map_or(Over::Tcp, |ConnectInfo(peer)| peer.over);
    if let Some(ConnectInfo(peer)) = peer {
        not_too_fast(state, &config, peer, request.uri().path())?;
    }
    check(&config, over, request.method(), request.uri().host(), request.headers())
        .inspect_err(|_| state.metrics.http.refused("guard"))?;
    admission::admit(state, request)
}

/// Who watches over us is never turned away.
const UNLIMITED: [&str; 2] = ["/health", "/ready"];

/// Not more requests from one client than it may make.
fn not_too_fast(state: &State, config: &Config, peer: &Peer, path: &str) -> Result<(), Error> {
    let count = config.requests_per_client_max;
    let Some(rate) = Rate::per_second(u32::try_from(count).unwrap_or(u32::MAX)) else { return Ok(()) };
    // A Unix socket's file says who may use it.
    if peer.over == Over::Unix || UNLIMITED.contains(&path) {
        return Ok(());
    }
    state.open.rates.take(peer.address(), rate, Instant::now()).map_err(|after| {
        let key = "requests_per_client_max";
        state.metrics.limits.hit(key);
        let text =
            format!("too many requests from {}: at most {count} a second ([limits] {key})", peer.address());
        Error::too_many(text, after)
    })
}

fn check(
    config: &Config,
    over: Over,
    method: &Method,
    target: Option<&str>,
    headers: &HeaderMap,
) -> Result<(), Error> {
    let forbidden = |text: String| Err(Error::new(StatusCode::FORBIDDEN, text));
    // RFC 9112 section 3.2.
    if headers.get_all(header::HOST).iter().nth(1).is_some() {
        return Err(Error::bad("a request has one Host"));
    }
    let text = |name| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    let host = text(header::HOST).or(target);
    if let Some(host) = host
        && over == Over::Tcp
        && !is_ours(config, host)
    {
        return forbidden(format!(
            "Host {host:?} is not this server's: use its address, or add the name to [http] allowed_hosts"
        ));
    }
    if matches!(*method, Method::GET | Method::HEAD | Method::OPTIONS) {
        return Ok(());
    }
    if text(header::HeaderName::from_static("sec-fetch-site")) == Some("cross-site") {
        return forbidden(
            "writes from other sites' pages are refused (Sec-Fetch-Site: cross-site)".to_owned(),
        );
    }
    let Some(origin) = text(header::ORIGIN) else { return Ok(()) };
    let same = origin.split_once("://").is_some_and(|(_, from)| host.is_some_and(|host| from == host));
    if same { Ok(()) } else { forbidden(format!("writes from another origin ({origin}) are refused")) }
}

/// Whether a Host is an address, localhost, or a name of ours, and nothing more (RFC 9110 section 7.2, RFC 3986 section 3.2).
fn is_ours(config: &Config, host: &str) -> bool {
    let is_port = |rest: &str| {
        rest.strip_prefix(':').is_some_and(|port| port.bytes().all(|b| b.is_ascii_digit())) || rest.is_empty()
    };
    if let Some(literal) = host.strip_prefix('[') {
        let parts = literal.split_once(']');
        return parts.is_some_and(|(address, rest)| address.parse::<Ipv6Addr>().is_ok() && is_port(rest));
    }
    let (name, rest) = host.split_at(host.find(':').unwrap_or(host.len()));
    if !is_port(rest) {
        return false;
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    name.parse::<Ipv4Addr>().is_ok()
        || name.eq_ignore_ascii_case("localhost")
        || name.eq_ignore_ascii_case(config.node.as_str())
        || config.allowed_hosts.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ask(method: Method, headers: &[(&'static str, &str)]) -> bool {
        ask_over(Over::Tcp, method, headers)
    }

    fn ask_over(over: Over, method: Method, headers: &[(&'static str, &str)]) -> bool {
        let config = Config { allowed_hosts: vec!["roll.example.com".into()], ..Config::for_tests() };
        let headers = headers.iter().map(|(name, value)| {
            (header::HeaderName::from_static(name), value.parse::<axum::http::HeaderValue>().unwrap())
        });
        check(&config, over, &method, None, &headers.collect()).is_ok()
    }

    #[test]
    fn only_addresses_and_our_names_are_hosts() {
        for (host, good) in [
            ("127.0.0.1:8500", true),
            ("[::1]:8500", true),
            ("10.1.2.3", true),
            ("localhost:8500", true),
            ("N1:8500", true),
            ("roll.example.com", true),
            ("evil.example:8500", false),
            ("127.0.0.1.evil.example", false),
            ("localhost.evil.example:8500", false),
            ("", false),
            ("[::1]", true),
            ("[::1]:", true),
            ("localhost.:80", true),
            ("[::1]evil.com", false),
            ("[::1].evil.com:8500", false),
            ("[::1]:8500evil.com", false),
            ("[::1", false),
            ("[evil.com]", false),
            ("[127.0.0.1]", false),
            ("::1", false),
            ("127.0.0.1:80:evil.com", false),
            ("127.0.0.1:80@evil.com", false),
            ("evil.com@127.0.0.1", false),
            ("localhost:evil.com", false),
            ("localhost:-1", false),
            ("localhost/evil.com", false),
            (" localhost", false),
        ] {
            assert_eq!(ask(Method::GET, &[("host", host)]), good, "{host}");
        }
        assert!(ask(Method::GET, &[]), "HTTP/1.0 without a Host");
        let mut two = HeaderMap::new();
        for host in ["127.0.0.1", "evil.example"] {
            two.append(header::HOST, host.parse().unwrap());
        }
        assert!(check(&Config::for_tests(), Over::Tls, &Method::GET, None, &two).is_err());
        for over in [Over::Tls, Over::Unix] {
            assert!(ask_over(over, Method::GET, &[("host", "evil.example:8500")]));
            let page = [("host", "127.0.0.1"), ("origin", "https://evil.example")];
            assert!(!ask_over(over, Method::PUT, &page), "a page may still not write");
        }
    }

    #[test]
    fn writes_from_other_origins_are_refused() {
        let host = ("host", "127.0.0.1:8500");
        for (headers, good) in [
            (vec![host], true),
            (vec![host, ("origin", "http://127.0.0.1:8500")], true),
            (vec![host, ("origin", "http://evil.example")], false),
            (vec![host, ("origin", "null")], false),
            (vec![("origin", "http://evil.example")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
        ] {
            assert_eq!(ask(Method::PUT, &headers), good, "{headers:?}");
            assert!(ask(Method::GET, &headers), "reads need no origin: {headers:?}");
        }
    }
}
