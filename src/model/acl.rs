//! Who may do what: tokens, policies, roles, and the ways to get a token. Plain values, as they are stored.
//!
//! A [`Secret`] is never shown by `Debug`; it is written where records are written (the store, a backup) and where Consul's
//! API shows it, and compared in constant time.

use std::fmt;
use std::sync::Arc;

use arcstr::ArcStr;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a client says to be let in.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(Arc<str>);

impl Secret {
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, for those few places that show it.
    pub fn reveal(&self) -> &str {
        &self.0
    }

    /// SHA-256 of it: what secrets are found by.
    pub fn digest(text: &str) -> Digest {
        let mut digest = [0; 32];
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, text.as_bytes());
        digest.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
        digest
    }

    /// Compares in a time that does not tell where the two differ.
    pub fn is(&self, text: &str) -> bool {
        aws_lc_rs::constant_time::verify_slices_are_equal(self.0.as_bytes(), text.as_bytes()).is_ok()
    }
}

/// SHA-256 of a secret.
pub type Digest = [u8; 32];

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.is(&other.0)
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("hidden")
    }
}

/// What a token or a role grants.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Grants {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub policies: Vec<Uuid>,
    /// A role has none of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub roles: Vec<Uuid>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<ServiceIdentity>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nodes: Vec<NodeIdentity>,
}

/// May register one service, and read all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceIdentity {
    pub name: String,
    /// Everywhere where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<String>,
}

/// May register one node, and read all services.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeIdentity {
    pub name: String,
    pub datacenter: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    pub accessor: Uuid,
    pub secret: Secret,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub grants: Grants,
    #[serde(default)]
    pub local: bool,
    /// The auth method that it came by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// Milliseconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// Milliseconds since 1970.
    #[serde(default)]
    pub created: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    pub id: Uuid,
    pub name: String,
    #[serde(default)]
    pub description: String,
    /// HCL or JSON; was parsed before it was taken.
    #[serde(default)]
    pub rules: String,
    /// Everywhere where there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub datacenters: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Role {
    pub id: Uuid,
    pub name: String,
    #[serde(default)]
    pub description: String,
    #[serde(default)]
    pub grants: Grants,
}

/// A way to get a token for another proof.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthMethod {
    pub name: String,
    pub kind: String,
    #[serde(default)]
    pub display_name: String,
    #[serde(default)]
    pub description: String,
    /// Milliseconds; 0 is for ever.
    #[serde(default)]
    pub max_ttl: u64,
    #[serde(default)]
    pub locality: String,
    /// As the client gave it; was read before it was taken.
    pub config: serde_json::Value,
}

/// What a token gets that came by an auth method.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BindingRule {
    pub id: Uuid,
    #[serde(default)]
    pub description: String,
    pub method: String,
    #[serde(default)]
    pub selector: String,
    pub bind: Bind,
    pub name: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bind {
    Service,
    Node,
    Role,
    Policy,
}

/// One record of access control.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Acl {
    Token(Arc<Token>),
    Policy(Arc<Policy>),
    Role(Arc<Role>),
    Method(Arc<AuthMethod>),
    Rule(Arc<BindingRule>),
    /// That the first management token was given away.
    Bootstrapped,
    /// What the server itself says where nobody says anything: `default`, `agent`, `dns`.
    Own {
        name: ArcStr,
        secret: Secret,
    },
}

/// Which record: its kind and its id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AclKey {
    pub kind: AclKind,
    /// A UUID, or the name where that is what tells them apart.
    pub id: ArcStr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum AclKind {
    Bootstrapped,
    Method,
    Own,
    Policy,
    Role,
    Rule,
    Token,
}

impl AclKind {
    const ALL: [Self; 7] =
        [Self::Bootstrapped, Self::Method, Self::Own, Self::Policy, Self::Role, Self::Rule, Self::Token];

    /// As it is stored.
    pub fn word(self) -> &'static str {
        match self {
            Self::Bootstrapped => "bootstrapped",
            Self::Method => "method",
            Self::Own => "own",
            Self::Policy => "policy",
            Self::Role => "role",
            Self::Rule => "rule",
            Self::Token => "token",
        }
    }

    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.word() == word)
    }
}

impl AclKey {
    pub fn new(kind: AclKind, id: &dyn fmt::Display) -> Self {
        Self { kind, id: id.to_string().into() }
    }
}

impl Acl {
    pub fn key(&self) -> AclKey {
        match self {
            Self::Token(token) => AclKey::new(AclKind::Token, &token.accessor),
            Self::Policy(policy) => AclKey::new(AclKind::Policy, &policy.id),
            Self::Role(role) => AclKey::new(AclKind::Role, &role.id),
            Self::Method(method) => AclKey::new(AclKind::Method, &method.name),
            Self::Rule(rule) => AclKey::new(AclKind::Rule, &rule.id),
            Self::Bootstrapped => AclKey::new(AclKind::Bootstrapped, &""),
            Self::Own { name, .. } => AclKey::new(AclKind::Own, name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_not_printed_and_is_compared_whole() {
        let secret = Secret::new("b1e0ac4d");
        assert_eq!(format!("{secret:?}"), "hidden");
        assert!(secret.is("b1e0ac4d") && !secret.is("b1e0ac4e") && !secret.is("b1e0ac4"));
        let own = Acl::Own { name: "dns".into(), secret };
        assert!(!format!("{own:?}").contains("b1e0"));
        assert_eq!(serde_json::from_str::<Acl>(&serde_json::to_string(&own).unwrap()).unwrap(), own);
    }

    #[test]
    fn kinds_have_words() {
        assert!(AclKind::ALL.into_iter().all(|kind| AclKind::parse(kind.word()) == Some(kind)));
    }
}
