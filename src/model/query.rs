//! Prepared queries: what was asked once, to be asked again by its name (Consul's API, `/v1/query`).

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::duration;

/// A query as it was defined. Where it is a template, the texts of [`service`](Self::service) hold `${…}`, which a name fills
/// in ([`Template`](super::Template)).
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreparedQuery {
    pub id: Uuid,
    /// Empty for a query that is known by its id alone, and for the template of all names.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Under whose name it is executed; empty: under that of whoever executes it. Never shown in a log.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub token: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<Terms>,
    pub service: Wanted,
    /// The longest TTL of answers in DNS, as it was written; empty: that of the service.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub ttl: String,
}

/// How a template matches. There is one type, `name_prefix_match`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Terms {
    /// What is found in the whole name for `${match(n)}`; empty: nothing.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub regexp: String,
    /// Tags that come out empty are not asked for.
    #[serde(default)]
    pub remove_empty_tags: bool,
}

/// Which instances are wanted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Wanted {
    pub service: String,
    #[serde(skip_serializing_if = "Failover::is_none")]
    pub failover: Failover,
    /// Not those with a warning.
    pub only_passing: bool,
    /// Checks that are not looked at.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_checks: Vec<String>,
    /// A node, `_agent` or `_ip`: those near it come first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub near: String,
    /// All of them; one that begins with `!` keeps those away that have it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub node_meta: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub service_meta: BTreeMap<String, String>,
}

/// Where else Consul would look when nothing is healthy: in other datacenters. There are none here, so it is kept and shown
/// and changes no answer.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Failover {
    pub nearest: i64,
    pub datacenters: Vec<String>,
    pub targets: Vec<FailoverTarget>,
}

/// One place of [`Failover`].
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct FailoverTarget {
    pub peer: String,
    pub datacenter: String,
}

impl Failover {
    /// Whether it names nothing.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

impl PreparedQuery {
    /// The longest TTL of its answers in DNS, where it says one.
    pub fn ttl(&self) -> Option<Duration> {
        (!self.ttl.is_empty()).then(|| duration::parse(&self.ttl).ok()).flatten()
    }
}

/// Without its token.
impl fmt::Debug for PreparedQuery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { id, name, token: _, template, service, ttl } = self;
        let mut shown = f.debug_struct("PreparedQuery");
        shown.field("id", id).field("name", name).field("template", template);
        shown.field("service", service).field("ttl", ttl).finish_non_exhaustive()
    }
}

impl Wanted {
    /// Every text that a template fills in, with its place as it is named to clients.
    pub fn texts_mut(&mut self) -> impl Iterator<Item = (String, &mut String)> {
        let Self { service, failover, only_passing: _, ignore_checks, near, tags, node_meta, service_meta } =
            self;
        let one = [(".Service".to_owned(), service), (".Near".to_owned(), near)].into_iter();
        let numbered = |at: &'static str| move |(n, text)| (format!("{at}[{n}]"), text);
        let keyed = |at: &'static str| move |(key, text)| (format!("{at}[{key}]"), text);
        let Failover { nearest: _, datacenters, targets } = failover;
        let targets = targets.iter_mut().enumerate().flat_map(|(n, target)| {
            let at = format!(".Failover.Targets[{n}]");
            [(format!("{at}.Peer"), &mut target.peer), (format!("{at}.Datacenter"), &mut target.datacenter)]
        });
        one.chain(ignore_checks.iter_mut().enumerate().map(numbered(".IgnoreCheckIDs")))
            .chain(tags.iter_mut().enumerate().map(numbered(".Tags")))
            .chain(node_meta.iter_mut().map(keyed(".NodeMeta")))
            .chain(service_meta.iter_mut().map(keyed(".ServiceMeta")))
            .chain(datacenters.iter_mut().enumerate().map(numbered(".Failover.Datacenters")))
            .chain(targets)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Definition, Record};

    #[test]
    fn its_token_is_not_printed_by_itself_or_by_what_holds_it() {
        let query = PreparedQuery {
            id: Uuid::from_u128(1),
            name: "main".to_owned(),
            token: "t0ken-9c1e".to_owned(),
            template: Some(Terms::default()),
            service: Wanted { service: "web".to_owned(), ..Wanted::default() },
            ttl: "5s".to_owned(),
        };
        let record = Record::Query(query.clone().into());
        let printed = [
            format!("{query:?}"),
            format!("{query:#?}"),
            format!("{record:?}"),
            format!("{:?}", Definition::Put(record)),
        ];
        for text in printed {
            assert!(text.contains("main") && text.contains("web") && !text.contains("t0ken-9c1e"), "{text}");
        }
    }
}
