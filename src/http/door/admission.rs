//! Who asks: the request's token, what it comes to, and what each route needs of it.
//!
//! One place looks at the token, before any handler: with access control off that is one load of a pointer. [`NEEDS`] has a line for
//! every route; a route without one is refused while access is controlled, and `tests/it/acl_routes.rs` fails. Reads are then made
//! from a snapshot that has only what the view shows (`Snapshot::seen_by`), so that a handler cannot show more; writes
//! go to the registry with the view ([`Admitted::submit`]), which asks for what they are about.

use std::sync::Arc;

use axum::extract::{ConnectInfo, FromRequestParts, MatchedPath, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::Response;

use super::caller::Peer;
use crate::acl::{Access as Wanted, Denied, Resource, View};
use crate::http::State;
use crate::http::error::Error;
use crate::model::{PreparedQuery, Secret};
use crate::registry::views::TOKEN_OCTETS_MAX;
use crate::registry::{Command, Refused};
use crate::telemetry::origin;

/// What is shown of a secret to those who may not see it, in Consul's words.
pub(in crate::http) const HIDDEN: &str = "<hidden>";

/// What a request may see and do.
#[derive(Debug, Clone, Default)]
pub(in crate::http) struct Admitted {
    pub(in crate::http) view: View,
    /// What the request brought.
    token: Option<Secret>,
}

/// What a route needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Nothing: the token is not looked at.
    Open,
    /// A token that is known, or none; what is read is filtered, and of what is written the registry asks.
    Known,
    /// Of our own node.
    Agent(Wanted),
    Operator(Wanted),
    Acl(Wanted),
    /// The path does not take this method.
    Never,
}

use Need::{Acl, Agent, Known, Never, Open, Operator};
use Wanted::{Read, Write};

/// Each route, what reading it needs, and what any other method does.
pub const NEEDS: &[(&str, Need, Need)] = &[
    ("/health", Open, Never),
    ("/metrics", Agent(Read), Never),
    ("/ready", Open, Never),
    // What is on the page is no secret; what it shows, it asks for.
    ("/ui", Open, Never),
    ("/ui/", Open, Never),
    ("/ui/{*file}", Open, Never),
    ("/v1/acl/auth-method", Never, Acl(Write)),
    ("/v1/acl/auth-method/", Acl(Read), Acl(Write)),
    ("/v1/acl/auth-method/{*name}", Acl(Read), Acl(Write)),
    ("/v1/acl/auth-methods", Acl(Read), Never),
    ("/v1/acl/binding-rule", Never, Acl(Write)),
    ("/v1/acl/binding-rule/", Acl(Read), Acl(Write)),
    ("/v1/acl/binding-rule/{*id}", Acl(Read), Acl(Write)),
    ("/v1/acl/binding-rules", Acl(Read), Never),
    ("/v1/acl/bootstrap", Never, Open),
    ("/v1/acl/login", Never, Open),
    ("/v1/acl/logout", Never, Known),
    ("/v1/acl/policies", Acl(Read), Never),
    ("/v1/acl/policy", Never, Acl(Write)),
    ("/v1/acl/policy/", Acl(Read), Acl(Write)),
    ("/v1/acl/policy/name/{*name}", Acl(Read), Never),
    ("/v1/acl/policy/{*id}", Acl(Read), Acl(Write)),
    ("/v1/acl/replication", Acl(Read), Never),
    ("/v1/acl/role", Never, Acl(Write)),
    ("/v1/acl/role/", Acl(Read), Acl(Write)),
    ("/v1/acl/role/name/{*name}", Acl(Read), Never),
    ("/v1/acl/role/{*id}", Acl(Read), Acl(Write)),
    ("/v1/acl/roles", Acl(Read), Never),
    ("/v1/acl/token", Never, Acl(Write)),
    ("/v1/acl/token/", Acl(Read), Acl(Write)),
    ("/v1/acl/token/self", Known, Never),
    ("/v1/acl/token/{id}", Acl(Read), Acl(Write)),
    ("/v1/acl/token/{id}/clone", Never, Acl(Write)),
    ("/v1/acl/tokens", Acl(Read), Never),
    ("/v1/agent/check/deregister/", Never, Known),
    ("/v1/agent/check/deregister/{*id}", Never, Known),
    ("/v1/agent/check/fail/", Never, Known),
    ("/v1/agent/check/fail/{*id}", Never, Known),
    ("/v1/agent/check/pass/", Never, Known),
    ("/v1/agent/check/pass/{*id}", Never, Known),
    ("/v1/agent/check/register", Never, Known),
    ("/v1/agent/check/update/", Never, Known),
    ("/v1/agent/check/update/{*id}", Never, Known),
    ("/v1/agent/check/warn/", Never, Known),
    ("/v1/agent/check/warn/{*id}", Never, Known),
    ("/v1/agent/checks", Known, Never),
    ("/v1/agent/force-leave/", Never, Operator(Write)),
    ("/v1/agent/force-leave/{*node}", Never, Operator(Write)),
    ("/v1/agent/health/service/id/", Known, Never),
    ("/v1/agent/health/service/id/{*id}", Known, Never),
    ("/v1/agent/health/service/name/", Known, Never),
    ("/v1/agent/health/service/name/{*name}", Known, Never),
    ("/v1/agent/host", Operator(Read), Never),
    ("/v1/agent/leave", Never, Agent(Write)),
    ("/v1/agent/maintenance", Never, Known),
    ("/v1/agent/members", Known, Never),
    ("/v1/agent/metrics", Agent(Read), Never),
    ("/v1/agent/metrics/stream", Agent(Read), Never),
    ("/v1/agent/monitor", Agent(Read), Never),
    ("/v1/agent/reload", Never, Agent(Write)),
    ("/v1/agent/self", Agent(Read), Never),
    ("/v1/agent/service/deregister/", Never, Known),
    ("/v1/agent/service/deregister/{*id}", Never, Known),
    ("/v1/agent/service/maintenance/", Never, Known),
    ("/v1/agent/service/maintenance/{*id}", Never, Known),
    ("/v1/agent/service/register", Never, Known),
    ("/v1/agent/service/{*id}", Known, Never),
    ("/v1/agent/services", Known, Never),
    ("/v1/agent/token/{name}", Never, Agent(Write)),
    ("/v1/agent/version", Agent(Read), Never),
    ("/v1/catalog/datacenters", Open, Never),
    ("/v1/catalog/deregister", Never, Known),
    ("/v1/catalog/node-services/", Known, Never),
    ("/v1/catalog/node-services/{*name}", Known, Never),
    ("/v1/catalog/node/", Known, Never),
    ("/v1/catalog/node/{*name}", Known, Never),
    ("/v1/catalog/nodes", Known, Never),
    ("/v1/catalog/register", Never, Known),
    ("/v1/catalog/service/", Known, Never),
    ("/v1/catalog/service/{*name}", Known, Never),
    ("/v1/catalog/services", Known, Never),
    ("/v1/health/checks/", Known, Never),
    ("/v1/health/checks/{*name}", Known, Never),
    ("/v1/health/node/", Known, Never),
    ("/v1/health/node/{*name}", Known, Never),
    ("/v1/health/service/", Known, Never),
    ("/v1/health/service/{*name}", Known, Never),
    ("/v1/health/state/", Known, Never),
    ("/v1/health/state/{*name}", Known, Never),
    ("/v1/query", Known, Known),
    ("/v1/query/", Known, Known),
    ("/v1/query/{*rest}", Known, Known),
    // It holds every secret.
    ("/v1/rollcall/backup", Acl(Write), Never),
    ("/v1/rollcall/drain/{*id}", Never, Known),
    // It shows every change, whoever may see it.
    ("/v1/rollcall/events", Acl(Write), Never),
    ("/v1/rollcall/explain", Known, Never),
    ("/v1/rollcall/export", Acl(Write), Never),
    ("/v1/rollcall/history/", Known, Never),
    ("/v1/rollcall/history/{*service}", Known, Never),
    ("/v1/rollcall/http_sd", Known, Never),
    ("/v1/rollcall/import", Never, Acl(Write)),
    ("/v1/rollcall/log-level", Agent(Read), Agent(Write)),
    ("/v1/rollcall/nodes", Known, Never),
    ("/v1/rollcall/openapi.json", Open, Never),
    ("/v1/rollcall/report", Never, Known),
    ("/v1/rollcall/route/{service}", Known, Known),
    ("/v1/rollcall/route/{service}/undo", Never, Known),
    ("/v1/rollcall/routes", Known, Never),
    ("/v1/rollcall/services", Known, Never),
    ("/v1/status/leader", Open, Never),
    ("/v1/status/peers", Open, Never),
];

/// Routes for callers on this machine alone, whatever their token: what these do or show is the operator's, also where there are no
/// tokens.
const HERE: &[(&str, &str)] = &[
    ("/v1/agent/leave", "ending the server"),
    ("/v1/agent/monitor", "the log"),
    ("/v1/agent/reload", "reloading"),
    ("/v1/rollcall/backup", "a backup"),
    ("/v1/rollcall/export", "the whole registry"),
    ("/v1/rollcall/import", "an import"),
    ("/v1/rollcall/log-level", "the log level"),
];

/// Resolves the token and refuses what the route does not give to it. Does nothing while access is not controlled.
pub(in crate::http) fn admit(state: &State, request: &mut Request) -> Result<(), Error> {
    // What methods there are is no secret.
    if request.method() == Method::OPTIONS {
        return Ok(());
    }
    // What leads nowhere says so to everybody.
    let Some(matched) = request.extensions().get::<MatchedPath>() else { return Ok(()) };
    let peer = request.extensions().get::<ConnectInfo<Peer>>().map(|ConnectInfo(peer)| *peer);
    from_here(matched.as_str(), request.method(), peer)
        .inspect_err(|_| state.metrics.http.refused("other machine"))?;
    if !state.registry.access_is_controlled() {
        let is_acl = matched.as_str().starts_with("/v1/acl/");
        // A method that is not there is told as everywhere.
        let (route, method) = (matched.as_str(), request.method());
        let session = route.ends_with("/login") || route.ends_with("/logout");
        let fits = match *method {
            Method::POST => session,
            Method::PUT => !session,
            Method::DELETE => route.ends_with('}'),
            _ => true,
        };
        let taken = is_acl && fits && !matches!(need(route, method), Some(Never));
        let disabled = || Err(Error::new(StatusCode::UNAUTHORIZED, "ACL support disabled"));
        return if taken { disabled() } else { Ok(()) };
    }
    let need = need(matched.as_str(), request.method());
    let access = match need {
        // Nothing may be seen by the way.
        Some(Open | Never) => Admitted { view: View::nothing(), token: None },
        _ => resolve(state, request.uri(), request.headers())?,
    };
    let Some(need) = need else {
        let text = format!("Permission denied: {} does not say what it needs", matched.as_str());
        return Err(Error::new(StatusCode::FORBIDDEN, text));
    };
    require(state, need, &access.view).map_err(|denied| {
        state.metrics.http.refused("acl");
        Error::from(denied)
    })?;
    request.extensions_mut().insert(access);
    Ok(())
}

fn require(state: &State, need: Need, view: &View) -> Result<(), Denied> {
    match need {
        Open | Known | Never => Ok(()),
        Agent(wanted) => view.require(Resource::Agent, state.config.load().node.folded(), wanted),
        Operator(wanted) => view.require(Resource::Operator, "", wanted),
        Acl(wanted) => view.require(Resource::Acl, "", wanted),
    }
}

/// Refuses callers from other machines what is for the operator of this one.
fn from_here(route: &str, method: &Method, peer: Option<Peer>) -> Result<(), Error> {
    let Some((_, what)) = HERE.iter().find(|(known, _)| *known == route) else { return Ok(()) };
    if peer.is_some_and(|peer| peer.is_here()) || need(route, method) == Some(Never) {
        return Ok(());
    }
    Err(Error::new(StatusCode::FORBIDDEN, format!("{what} is for callers on this machine only")))
}

fn need(route: &str, method: &Method) -> Option<Need> {
    let (_, read, write) = NEEDS.iter().find(|(known, ..)| *known == route)?;
    Some(match *method {
        Method::GET | Method::HEAD => *read,
        Method::OPTIONS => Open,
        Method::PUT | Method::POST | Method::DELETE => *write,
        _ => Never,
    })
}

fn resolve(state: &State, uri: &Uri, headers: &HeaderMap) -> Result<Admitted, Error> {
    let token = token(uri, headers);
    let refused = |kind| {
        state.metrics.http.refused(kind);
        Error::new(StatusCode::FORBIDDEN, "ACL not found")
    };
    if token.as_ref().is_some_and(|token| token.len() > TOKEN_OCTETS_MAX) {
        return Err(refused("token too long"));
    }
    let view = state.registry.view(token.as_deref()).map_err(|_| refused("unknown token"))?;
    if let Some(accessor) = view.accessor() {
        origin::note_who(accessor);
    }
    Ok(Admitted { view, token: token.map(|token| Secret::new(&token)) })
}

/// The token that a request brings: `?token=`, `X-Consul-Token`, or a bearer (RFC 6750). An empty one is none.
pub(in crate::http) fn token(uri: &Uri, headers: &HeaderMap) -> Option<String> {
    let mut pairs = url::form_urlencoded::parse(uri.query().unwrap_or("").as_bytes());
    let query = pairs.find(|(key, _)| key == "token").map(|(_, value)| value.into_owned());
    let text =
        |name: &str| headers.get(name).map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let bearer = || {
        let value = text(header::AUTHORIZATION.as_str())?;
        let mut words = value.split_ascii_whitespace();
        let scheme = words.next()?;
        scheme.eq_ignore_ascii_case("bearer").then(|| words.next().map(str::to_owned)).flatten()
    };
    let some = |token: &String| !token.is_empty();
    query.filter(some).or_else(|| text("x-consul-token").filter(some)).or_else(|| bearer().filter(some))
}

impl<S: Send + Sync> FromRequestParts<S> for Admitted {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        Ok(parts.extensions.get::<Self>().cloned().unwrap_or_default())
    }
}

impl Admitted {
    /// The same request later: its token may have been taken away while it waited.
    pub(in crate::http) fn again(&self, state: &State) -> Result<View, Error> {
        let view = state.registry.view(self.token.as_ref().map(Secret::reveal));
        view.map_err(|_| Error::new(StatusCode::FORBIDDEN, "ACL not found"))
    }

    /// Ready when whoever began to read a stream may not read that route any more: their token was taken away, its time is over, or
    /// its rules are others.
    pub(in crate::http) async fn lapses(self, state: Arc<State>, route: &'static str) {
        loop {
            let changed = state.registry.access_changed();
            tokio::pin!(changed);
            changed.as_mut().enable();
            // A route that no line lets in is none that anyone may go on reading.
            let need = need(route, &Method::GET);
            let may = need.is_some_and(|need| {
                self.again(&state).is_ok_and(|view| require(&state, need, &view).is_ok())
            });
            if !may {
                state.metrics.http.refused("acl");
                return;
            }
            changed.await;
        }
    }

    /// The same, to answer with after a wait.
    pub(in crate::http) fn renewed(&self, state: &State) -> Result<Self, Error> {
        Ok(Self { view: self.again(state)?, token: self.token.clone() })
    }

    /// Whether the request brought a token.
    pub(in crate::http) fn is_named(&self) -> bool {
        self.token.is_some()
    }

    /// Carries out a command, where the asker may do what it comes to: the registry judges that. The token is looked up again: it may
    /// have been taken away while the request's body came.
    pub(in crate::http) async fn submit(&self, state: &State, command: Command) -> Result<(), Error> {
        let view = if self.view.is_open() { View::default() } else { self.again(state)? };
        let outcome = state.registry.submit_as(view, command).await;
        if matches!(outcome, Err(Refused::Denied(_) | Refused::Hidden(_))) {
            state.metrics.http.refused("acl");
        }
        Ok(outcome?)
    }

    pub(in crate::http) fn read_service(&self, name: &str) -> Result<(), Error> {
        Ok(self.view.require(Resource::Service, name, Read)?)
    }

    /// Prepared queries are guarded by their names. One without a name is listed to those alone who may write the ACL.
    pub(in crate::http) fn read_query(&self, query: &PreparedQuery) -> Result<(), Error> {
        match query.name.is_empty() && query.template.is_none() {
            true => Ok(self.view.require(Resource::Acl, "", Write)?),
            false => Ok(self.view.require(Resource::Query, &query.name, Read)?),
        }
    }

    /// A secret that somebody else gave, for those who may see it.
    pub(in crate::http) fn secret<'a>(&self, secret: &'a str) -> &'a str {
        match secret.is_empty() || self.view.allows(Resource::Acl, "", Write) {
            true => secret,
            false => HIDDEN,
        }
    }

    /// Whether an instance is shown in a list, by its service and node; marks that something is not.
    pub(in crate::http) fn shows(&self, service: &str, node: &str, hidden: &mut bool) -> bool {
        let shown = self.view.reads_service(service) && self.view.reads_node(node);
        *hidden |= !shown;
        shown
    }

    pub(in crate::http) fn shows_node(&self, node: &str, hidden: &mut bool) -> bool {
        let shown = self.view.reads_node(node);
        *hidden |= !shown;
        shown
    }

    /// Says that something was left out, to those who brought a token.
    pub(in crate::http) fn filtered(&self, mut response: Response, hidden: bool) -> Response {
        if hidden && self.is_named() {
            let told = HeaderValue::from_static("true");
            response.headers_mut().insert("x-consul-results-filtered-by-acls", told);
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::door::caller::Over;

    #[test]
    fn a_token_comes_by_query_header_or_bearer_in_this_order() {
        let ask = |query: &str, headers: &[(&'static str, &str)]| {
            let headers = headers.iter().map(|(name, value)| {
                (header::HeaderName::from_static(name), value.parse::<header::HeaderValue>().unwrap())
            });
            token(&format!("/v1/x{query}").parse().unwrap(), &headers.collect())
        };
        let (own, bearer) = (("x-consul-token", "b"), ("authorization", "BEARER c d"));
        assert_eq!(ask("?token=a%2D1&x", &[own, bearer]).as_deref(), Some("a-1"));
        assert_eq!(ask("?token=&x", &[own, bearer]).as_deref(), Some("b"));
        assert_eq!(ask("", &[bearer]).as_deref(), Some("c"));
        assert_eq!(ask("", &[("authorization", "Basic eDp5")]), None);
        assert_eq!(ask("", &[("x-consul-token", "")]), None);
    }

    #[test]
    fn what_is_the_operators_is_for_callers_on_this_machine() {
        let from = |remote: &str| Peer {
            remote: remote.parse().unwrap(),
            local: "10.0.0.1:8500".parse().unwrap(),
            over: Over::Tcp,
        };
        for (route, what) in HERE {
            let (method, other) = match need(route, &Method::GET) {
                Some(Never) => (Method::PUT, Method::GET),
                _ => (Method::GET, Method::PUT),
            };
            let refused = from_here(route, &method, Some(from("10.0.0.2:9"))).unwrap_err();
            let text = format!("{what} is for callers on this machine only");
            assert_eq!((refused.status, refused.text), (StatusCode::FORBIDDEN, text), "{route}");
            assert!(from_here(route, &method, None).is_err(), "whoever it is");
            assert_eq!(from_here(route, &method, Some(from("127.0.0.1:9"))), Ok(()));
            assert_eq!(from_here(route, &method, Some(from("10.0.0.1:9"))), Ok(()));
            let told = from_here(route, &other, Some(from("10.0.0.2:9")));
            let there = need(route, &other) != Some(Never);
            assert_eq!(told.is_err(), there, "405 is told to all: {route}");
        }
        assert_eq!(from_here("/v1/agent/services", &Method::GET, Some(from("10.0.0.2:9"))), Ok(()));
    }

    #[test]
    fn routes_stand_once_and_in_order() {
        assert!(NEEDS.is_sorted_by(|(a, ..), (b, ..)| a < b));
    }
}
