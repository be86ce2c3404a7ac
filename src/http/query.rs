//! Query parameters, as Consul names them.

use std::time::Duration;

use axum::extract::{FromRequestParts, Query};
use axum::http::request::Parts;
use axum::http::{HeaderMap, header};

use super::door::admission::Admitted;
use super::error::Error;
use crate::model::duration;

/// All parameters in their order; names may repeat.
#[derive(Debug, Clone, Default)]
pub(super) struct Params {
    pairs: Vec<(String, String)>,
    /// Who asks: what is read for these parameters is what they may see.
    pub(super) asker: Admitted,
    /// The Cache-Control header has a number that is none.
    bad_cache_control: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Error> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let Query(pairs) = pairs.map_err(|e| Error::bad(format!("Invalid query string: {e}")))?;
        let asker = parts.extensions.get::<Admitted>().cloned().unwrap_or_default();
        let params = Self { pairs, asker, bad_cache_control: !is_cache_control(&parts.headers) };
        let scopes =
            [("ns", "X-Consul-Namespace", "Namespaces"), ("partition", "X-Consul-Partition", "Partitions")];
        for (parameter, header, feature) in scopes {
            let refused = match () {
                () if params.has(parameter) => format!("query parameter: {parameter:?}"),
                () if parts.headers.contains_key(header) => format!("header: {header:?}"),
                () => continue,
            };
            return Err(Error::bad(format!("Invalid {refused} - {feature} are a Consul Enterprise feature")));
        }
        Ok(params)
    }
}

impl Params {
    /// The first value of a parameter.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.pairs.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Every value of a parameter.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.pairs.iter().filter(move |(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Refuses what is none of these: where a request does much, a mistyped parameter is not passed over.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Error> {
        let unknown = self.pairs.iter().find(|(key, _)| !known.contains(&key.as_str()));
        unknown.map_or(Ok(()), |(key, _)| Err(Error::bad(format!("Unknown query parameter {key:?}"))))
    }

    /// A flag: present and empty means set.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Error> {
        match self.get(name) {
            None => Ok(false),
            Some("") => Ok(true),
            Some(text) => parse_bool(text).ok_or_else(|| Error::bad(format!("Invalid value for ?{name}"))),
        }
    }

    /// What a blocking query waits for: the index that was seen, and how long.
    pub(super) fn blocking(&self) -> Result<(u64, Option<Duration>), Error> {
        let index = match self.get("index").unwrap_or("") {
            "" => 0,
            text => text.parse().map_err(|_| Error::bad("Invalid index"))?,
        };
        let wait = match self.get("wait").unwrap_or("") {
            "" => None,
            text => Some(duration::parse(text).map_err(|_| Error::bad("Invalid wait time"))?),
        };
        Ok((index, wait))
    }

    /// Checks what concerns a whole listing: consistency, datacenter, and what is not served.
    pub(super) fn check_read(&self, datacenter: &str) -> Result<(), Error> {
        for other in ["stale", "cached"] {
            if self.has("consistent") && self.has(other) {
                return Err(Error::bad(format!(
                    "Cannot specify ?{other} with ?consistent, conflicting semantics."
                )));
            }
        }
        if let Some(text) = self.get("max_stale")
            && duration::parse(text).is_err()
        {
            return Err(Error::bad(format!("Invalid max_stale value {text:?}")));
        }
        let asked = self.get("datacenter").or_else(|| self.get("dc")).unwrap_or("");
        if !asked.is_empty() && !asked.eq_ignore_ascii_case(datacenter) {
            return Err(Error::server("No path to datacenter"));
        }
        if self.bad_cache_control {
            return Err(Error::bad("Invalid Cache-Control header."));
        }
        Ok(())
    }

    /// How consistent the client asked the answer to be; ours always is.
    pub(super) fn consistency(&self) -> &'static str {
        match () {
            () if self.has("consistent") => "consistent",
            () if self.has("stale") => "stale",
            () => "leader",
        }
    }

    /// Every `tag=`: an instance must have them all.
    pub(super) fn tags(&self) -> Vec<String> {
        self.all("tag").map(str::to_owned).collect()
    }

    /// The `node-meta=key:value` pairs.
    pub(super) fn node_meta(&self) -> Vec<(&str, &str)> {
        self.all("node-meta").map(|pair| pair.split_once(':').unwrap_or((pair, ""))).collect()
    }

    /// The same, for who outlives the request.
    pub(super) fn node_meta_owned(&self) -> Vec<(String, String)> {
        self.node_meta().into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
    }
}

/// Whether the numbers of Cache-Control are numbers. Of its directives only those that have one could be wrong.
fn is_cache_control(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter().filter_map(|value| value.to_str().ok());
    let mut directives = values.flat_map(|value| value.split(',')).map(|d| d.trim().to_ascii_lowercase());
    directives.all(|directive| match directive.split_once('=') {
        Some(("max-age" | "stale-if-error", seconds)) => {
            duration::parse(&format!("{}s", seconds.trim())).is_ok()
        }
        _ => true,
    })
}

/// What Go's `strconv.ParseBool` takes.
pub(super) fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn params(query: &str) -> Params {
        let uri = format!("http://x/?{query}").parse().unwrap();
        Params {
            pairs: Query::try_from_uri(&uri).unwrap().0,
            asker: Admitted::default(),
            bad_cache_control: false,
        }
    }

    #[test]
    fn blocking_options_are_consuls() {
        assert_eq!(params("").blocking(), Ok((0, None)));
        assert_eq!(params("index=7&wait=60000ms").blocking(), Ok((7, Some(Duration::from_secs(60)))));
        for (query, text) in
            [("index=-1", "Invalid index"), ("index=x", "Invalid index"), ("wait=10", "Invalid wait time")]
        {
            assert_eq!(params(query).blocking().unwrap_err().text, text);
        }
    }

    #[test]
    fn conflicts_and_other_datacenters_are_refused() {
        for (query, text) in [
            ("stale&consistent", "Cannot specify ?stale with ?consistent, conflicting semantics."),
            ("cached&consistent", "Cannot specify ?cached with ?consistent, conflicting semantics."),
            ("max_stale=x", "Invalid max_stale value \"x\""),
            ("dc=dc2", "No path to datacenter"),
            ("dc=dc1&datacenter=dc2", "No path to datacenter"),
        ] {
            assert_eq!(params(query).check_read("dc1").unwrap_err().text, text);
        }
        assert_eq!(params("dc=DC1&stale&cached&near=_agent").check_read("dc1"), Ok(()));
    }

    #[test]
    fn cache_control_is_read_as_far_as_it_has_numbers() {
        for (value, good) in [
            ("no-cache", true),
            ("max-age=60, stale-if-error=3600, must-revalidate", true),
            ("Max-Age=x", false),
            ("must-revalidate, stale-if-error=", false),
        ] {
            let headers = [(header::CACHE_CONTROL, value.parse().unwrap())].into_iter().collect();
            assert_eq!(is_cache_control(&headers), good, "{value}");
        }
    }

    #[test]
    fn flags_are_set_by_their_presence() {
        assert_eq!(params("passing").flag("passing"), Ok(true));
        assert_eq!(params("passing=0").flag("passing"), Ok(false));
        assert!(params("passing=maybe").flag("passing").is_err());
    }
}
