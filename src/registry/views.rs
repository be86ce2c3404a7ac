//! Whose request is this: from a token to what it may see and do.
//!
//! A token is looked up once for each state of the tables, and remembered; one that nobody has costs a hash and a look-up, and is
//! not remembered, so that wrong tokens fill nothing. DNS has one view for all its questions, made anew when the tables or
//! the configuration change: its readers compare a pointer.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::acl::{ANONYMOUS_SECRET, Config, Tables, View};
use crate::model::Secret;
use crate::model::acl::Digest;

/// Octets of a token that is looked up; Consul's are UUIDs.
pub const TOKEN_OCTETS_MAX: usize = 1024;
/// Tokens that are remembered.
const REMEMBERED_MAX: usize = 4096;

/// How access is controlled, and where.
#[derive(Debug, Default)]
pub(super) struct Settings {
    config: Config,
    datacenter: String,
}

pub(super) struct Views {
    settings: ArcSwap<Settings>,
    dns: ArcSwap<View>,
    remembered: Mutex<Remembered>,
    /// Told when the tables or the settings are others than before.
    changed: Notify,
}

/// Milliseconds since 1970.
pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Views of secrets, by their hashes, as of one state of the tables and the settings.
#[derive(Default)]
struct Remembered {
    index: u64,
    views: HashMap<Digest, View>,
}

/// Nobody has this token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnknownToken;

impl Default for Views {
    /// Not controlled.
    fn default() -> Self {
        Self {
            settings: ArcSwap::default(),
            dns: ArcSwap::from_pointee(View::default()),
            remembered: Mutex::default(),
            changed: Notify::new(),
        }
    }
}

impl Views {
    /// Takes new settings.
    pub(super) fn set(&self, config: Config, datacenter: String, tables: &Tables, now: u64) {
        self.settings.store(Arc::new(Settings { config, datacenter }));
        self.remembered.lock().views.clear();
        self.refresh(tables, now);
    }

    /// Makes the view of DNS anew: its token's, else that of requests without one. A token that is not there sees nothing.
    pub(super) fn refresh(&self, tables: &Tables, now: u64) {
        let settings = self.settings.load();
        let view = match settings.config.enabled {
            false => View::default(),
            true => {
                let own = tables.own("dns").or(settings.config.dns_token.as_ref());
                self.view(tables, own.map(Secret::reveal), now).unwrap_or_else(|_| {
                    tracing::warn!("the token for DNS ([acl] dns_token) is not known: DNS answers nothing");
                    View::nothing()
                })
            }
        };
        self.dns.store(Arc::new(view));
        self.changed.notify_waiters();
    }

    pub(super) fn changed(&self) -> Notified<'_> {
        self.changed.notified()
    }

    pub(super) fn enabled(&self) -> bool {
        self.settings.load().config.enabled
    }

    pub(super) fn default_is_allow(&self) -> bool {
        let settings = self.settings.load();
        !settings.config.enabled || settings.config.default_allow
    }

    pub(super) fn config(&self) -> Config {
        self.settings.load().config.clone()
    }

    pub(super) fn dns(&self) -> arc_swap::Guard<Arc<View>> {
        self.dns.load()
    }

    /// What the bearer of a token may do; without one, of the default token, else the anonymous one.
    pub(super) fn view(&self, tables: &Tables, token: Option<&str>, now: u64) -> Result<View, UnknownToken> {
        let settings = self.settings.load();
        if !settings.config.enabled {
            return Ok(View::default());
        }
        let default = || tables.own("default").or(settings.config.default_token.as_ref()).map(Secret::reveal);
        let secret = token.or_else(default).unwrap_or(ANONYMOUS_SECRET);
        if secret.len() > TOKEN_OCTETS_MAX {
            return Err(UnknownToken);
        }
        let digest = Secret::digest(secret);
        let known = {
            let mut remembered = self.remembered.lock();
            if remembered.index != tables.index() {
                remembered.views.clear();
                remembered.index = tables.index();
            }
            remembered.views.get(&digest).cloned()
        };
        let view = match known {
            Some(view) => view,
            None => {
                let view = tables.view(secret, &settings.config, &settings.datacenter).ok_or(UnknownToken)?;
                self.remember(digest, &view, tables.index(), &settings);
                view
            }
        };
        if view.is_expired(now) { Err(UnknownToken) } else { Ok(view) }
    }

    fn remember(&self, digest: Digest, view: &View, index: u64, settings: &Arc<Settings>) {
        let mut remembered = self.remembered.lock();
        // What was made of older tables or settings is not kept for newer ones.
        if remembered.index != index || !Arc::ptr_eq(settings, &self.settings.load()) {
            return;
        }
        if remembered.views.len() >= REMEMBERED_MAX {
            remembered.views.clear();
        }
        remembered.views.insert(digest, view.clone());
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::acl::rules::{Access as Wanted, Resource};
    use crate::model::Acl;
    use crate::model::acl::{Grants, Policy, Token};

    fn tables(rules: &str, expires: Option<u64>) -> Tables {
        let (mut tables, id) = (Tables::default(), Uuid::from_u128(7));
        let (name, rules) = ("p".into(), rules.into());
        let policy = Policy { id, name, description: String::new(), rules, datacenters: vec![] };
        tables.put(5, &Acl::Policy(policy.into()));
        let token = Token {
            accessor: Uuid::from_u128(8),
            secret: Secret::new("s3cret"),
            description: String::new(),
            grants: Grants { policies: vec![id], ..Grants::default() },
            local: false,
            method: None,
            expires,
            created: 0,
        };
        tables.put(6, &Acl::Token(token.into()));
        tables
    }

    #[test]
    fn tokens_are_resolved_and_forgotten_when_tables_change() {
        let views = Views::default();
        let mut tables = tables(r#"service "web" { policy = "write" }"#, Some(100));
        assert!(views.view(&tables, Some("anything"), 0).unwrap().is_open(), "off by default");
        let config = Config { enabled: true, dns_token: Some(Secret::new("s3cret")), ..Config::default() };
        views.set(config.clone(), "dc1".into(), &tables, 0);
        let may = |view: &View| view.allows(Resource::Service, "web", Wanted::Write);
        assert!(may(&views.view(&tables, Some("s3cret"), 99).unwrap()) && may(&views.dns()));
        assert_eq!(views.view(&tables, Some("s3cret"), 100).err(), Some(UnknownToken), "expired");
        assert_eq!(views.view(&tables, Some("other"), 0).err(), Some(UnknownToken));
        assert_eq!(views.view(&tables, Some(&"x".repeat(1 << 20)), 0).err(), Some(UnknownToken));
        assert!(!may(&views.view(&tables, None, 0).unwrap()));
        assert_eq!(views.remembered.lock().views.len(), 2);
        tables.remove(7, &crate::model::AclKey::new(crate::model::AclKind::Token, &Uuid::from_u128(8)));
        assert_eq!(views.view(&tables, Some("s3cret"), 0).err(), Some(UnknownToken));
        views.refresh(&tables, 0);
        assert!(!views.dns().is_open() && !may(&views.dns()));
        let initial = Config { initial_management: Some(Secret::new("first")), ..config };
        views.set(initial, "dc1".into(), &tables, 0);
        assert!(views.view(&tables, Some("first"), 0).unwrap().allows(Resource::Acl, "", Wanted::Write));
    }
}
