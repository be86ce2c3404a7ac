//! Access control: what a token may see and do. Pure: no I/O, no clock; the registry holds the [`Tables`] in its snapshots, and
//! whoever answers asks a [`View`].
//!
//! A token's policies, roles and identities give [`rules`], and those an [`Authorizer`], once for each state of the tables.
//! With access control off there is one view, which asks nothing.

mod authorizer;
pub mod jwt;
pub mod method;
pub mod rules;
mod strict;
mod tables;

use std::fmt;
use std::sync::Arc;

use uuid::{Uuid, uuid};

pub use authorizer::Authorizer;
pub use rules::{Access, Resource};
pub use tables::{Entry, PolicyEntry, Tables};

use crate::model::Secret;

/// The token of those who bring none.
pub const ANONYMOUS: Uuid = uuid!("00000000-0000-0000-0000-000000000002");
pub const ANONYMOUS_SECRET: &str = "anonymous";
/// What the token is called that the configuration names `initial_management`.
pub const INITIAL: Uuid = uuid!("00000000-0000-0000-0000-000000000003");
/// Policies that are always there.
pub const GLOBAL_MANAGEMENT: Uuid = uuid!("00000000-0000-0000-0000-000000000001");
pub const GLOBAL_READ_ONLY: Uuid = uuid!("00000000-0000-0000-0000-000000000002");

/// Whether a policy is always there, and cannot be changed.
pub fn is_builtin(policy: Uuid) -> bool {
    tables::is_builtin(policy)
}

/// The rules of a service identity: to register the service (and its sidecar), and to find all others.
pub fn service_rules(name: &str) -> String {
    format!(
        "service {name:?} {{ policy = \"write\" }}\nservice {:?} {{ policy = \"write\" }}\n\
         service_prefix \"\" {{ policy = \"read\" }}\nnode_prefix \"\" {{ policy = \"read\" }}\n",
        format!("{name}-sidecar-proxy")
    )
}

/// The rules of a node identity: to register the node, and to find all services.
pub fn node_rules(name: &str) -> String {
    format!("node {name:?} {{ policy = \"write\" }}\nservice_prefix \"\" {{ policy = \"read\" }}\n")
}

/// How access is controlled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Config {
    pub enabled: bool,
    /// What holds where no rule speaks.
    pub default_allow: bool,
    /// A management token.
    pub initial_management: Option<Secret>,
    /// Of requests that bring none, instead of the anonymous one.
    pub default_token: Option<Secret>,
    /// Of the server's own work; kept for those who ask for it.
    pub agent_token: Option<Secret>,
    /// Of DNS questions.
    pub dns_token: Option<Secret>,
}

impl Config {
    /// All secrets in it, each in its place.
    pub fn secrets(&self) -> [Option<&Secret>; 4] {
        [&self.initial_management, &self.default_token, &self.agent_token, &self.dns_token]
            .map(Option::as_ref)
    }
}

/// What somebody may see and do; cheap to clone. The default is that of a server without access control.
#[derive(Clone, Default)]
pub struct View(Option<Arc<Known>>);

struct Known {
    authorizer: Authorizer,
    accessor: Uuid,
    /// Milliseconds since 1970.
    expires: Option<u64>,
    /// Whether every service, every node may be read: most that may read at all may read all.
    reads: [bool; 2],
}

/// Why something may not be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    accessor: Uuid,
    resource: Resource,
    access: Access,
    /// Empty where the resource has no names.
    name: String,
}

impl View {
    pub fn new(authorizer: Authorizer, accessor: Uuid, expires: Option<u64>) -> Self {
        let reads =
            [Resource::Service, Resource::Node].map(|resource| authorizer.allows_all(resource, Access::Read));
        Self(Some(Arc::new(Known { authorizer, accessor, expires, reads })))
    }

    /// Of somebody who may do nothing.
    pub fn nothing() -> Self {
        Self::new(Authorizer::default(), ANONYMOUS, None)
    }

    /// Whether access is not controlled at all.
    pub fn is_open(&self) -> bool {
        self.0.is_none()
    }

    /// Whether every service and every node may be read.
    pub fn reads_all(&self) -> bool {
        self.0.as_ref().is_none_or(|known| known.reads == [true; 2])
    }

    /// Whose it is; nobody's where access is not controlled.
    pub fn accessor(&self) -> Option<Uuid> {
        self.0.as_ref().map(|known| known.accessor)
    }

    pub fn is_expired(&self, now: u64) -> bool {
        self.0.as_ref().and_then(|known| known.expires).is_some_and(|expires| expires <= now)
    }

    pub fn allows(&self, resource: Resource, name: &str, access: Access) -> bool {
        self.0.as_ref().is_none_or(|known| known.authorizer.allows(resource, name, access))
    }

    pub fn reads_service(&self, name: &str) -> bool {
        self.0
            .as_ref()
            .is_none_or(|known| known.reads[0] || self.allows(Resource::Service, name, Access::Read))
    }

    pub fn reads_node(&self, name: &str) -> bool {
        self.0.as_ref().is_none_or(|known| known.reads[1] || self.allows(Resource::Node, name, Access::Read))
    }

    /// Whether every service may be read, whatever its name.
    pub fn reads_services(&self) -> bool {
        self.0.as_ref().is_none_or(|known| known.reads[0])
    }

    /// Errs where something may not be done.
    pub fn require(&self, resource: Resource, name: &str, access: Access) -> Result<(), Denied> {
        if self.allows(resource, name, access) { Ok(()) } else { Err(self.lacks(resource, name, access)) }
    }

    /// That something may not be done.
    pub fn lacks(&self, resource: Resource, name: &str, access: Access) -> Denied {
        let name = if resource.is_single() { "" } else { name };
        Denied { accessor: self.accessor().unwrap_or(ANONYMOUS), resource, access, name: name.to_owned() }
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            None => f.write_str("View(open)"),
            Some(known) => write!(f, "View({})", known.accessor),
        }
    }
}

/// Consul's words.
impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let access = match self.access {
            Access::Write => "write",
            Access::Deny | Access::List | Access::Read => "read",
        };
        let anonymous = self.accessor == ANONYMOUS;
        f.write_str("Permission denied: ")?;
        match anonymous {
            true => f.write_str("anonymous token")?,
            false => write!(f, "token with AccessorID '{}'", self.accessor)?,
        }
        write!(f, " lacks permission '{}:{access}'", self.resource.word())?;
        if !self.resource.is_single() {
            write!(f, " on {:?}", self.name)?;
        }
        if anonymous {
            f.write_str(". The anonymous token is used implicitly when a request does not specify a token.")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn denials_are_in_consuls_words() {
        let view = View::nothing();
        let text = |view: &View, resource, name, access| {
            view.require(resource, name, access).unwrap_err().to_string()
        };
        assert_eq!(
            text(&view, Resource::Service, "web", Access::Write),
            "Permission denied: anonymous token lacks permission 'service:write' on \"web\". \
             The anonymous token is used implicitly when a request does not specify a token."
        );
        let named = View::new(Authorizer::default(), INITIAL, None);
        assert_eq!(
            text(&named, Resource::Operator, "x", Access::Read),
            format!("Permission denied: token with AccessorID '{INITIAL}' lacks permission 'operator:read'")
        );
        let open = View::default();
        assert!(open.is_open() && open.require(Resource::Acl, "", Access::Write).is_ok() && open.reads_all());
        assert!(!view.reads_all() && !view.reads_node("n") && !view.reads_service("s"));
    }
}
