//! Bodies of the ACL endpoints, and their links to policies and roles, by id or by name.

use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use super::super::decode::{GoDuration, Kind, Shape, decode};
use super::super::error::Error;
use crate::acl::{Tables, rules};
use crate::model::acl::{Grants, NodeIdentity, ServiceIdentity};

/// Links and identities of one token or role, each kind.
const LINKS_MAX: usize = 1000;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct Link {
    #[serde(rename = "ID")]
    id: String,
    name: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct ServiceIdentityBody {
    service_name: String,
    datacenters: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct NodeIdentityBody {
    node_name: String,
    datacenter: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct TokenBody {
    #[serde(rename = "AccessorID")]
    pub(super) accessor: String,
    #[serde(rename = "SecretID")]
    pub(super) secret: String,
    pub(super) description: String,
    policies: Vec<Link>,
    roles: Vec<Link>,
    service_identities: Vec<ServiceIdentityBody>,
    node_identities: Vec<NodeIdentityBody>,
    templated_policies: Vec<Value>,
    pub(super) local: bool,
    pub(super) auth_method: String,
    #[serde(rename = "ExpirationTTL")]
    pub(super) expiration_ttl: Option<GoDuration>,
    pub(super) expiration_time: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct PolicyBody {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) rules: String,
    pub(super) datacenters: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RoleBody {
    #[serde(rename = "ID")]
    pub(super) id: String,
    pub(super) name: String,
    pub(super) description: String,
    policies: Vec<Link>,
    service_identities: Vec<ServiceIdentityBody>,
    node_identities: Vec<NodeIdentityBody>,
    templated_policies: Vec<Value>,
}

const LINK: Shape = Shape { fields: &[("ID", Kind::Plain), ("Name", Kind::Plain)], aliases: &[], lax: false };
const SERVICE_IDENTITY: Shape =
    Shape { fields: &[("ServiceName", Kind::Plain), ("Datacenters", Kind::Plain)], aliases: &[], lax: false };
const NODE_IDENTITY: Shape =
    Shape { fields: &[("NodeName", Kind::Plain), ("Datacenter", Kind::Plain)], aliases: &[], lax: false };
pub(in crate::http) const TOKEN: Shape = Shape {
    fields: &[
        ("AccessorID", Kind::Plain),
        ("SecretID", Kind::Plain),
        ("Description", Kind::Plain),
        ("Policies", Kind::List(&LINK)),
        ("Roles", Kind::List(&LINK)),
        ("ServiceIdentities", Kind::List(&SERVICE_IDENTITY)),
        ("NodeIdentities", Kind::List(&NODE_IDENTITY)),
        ("TemplatedPolicies", Kind::Plain),
        ("Local", Kind::Plain),
        ("AuthMethod", Kind::Plain),
        ("ExpirationTTL", Kind::Plain),
        ("ExpirationTime", Kind::Plain),
        ("CreateTime", Kind::Plain),
        ("Hash", Kind::Plain),
        ("CreateIndex", Kind::Plain),
        ("ModifyIndex", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};
pub(in crate::http) const POLICY: Shape = Shape {
    fields: &[
        ("ID", Kind::Plain),
        ("Name", Kind::Plain),
        ("Description", Kind::Plain),
        ("Rules", Kind::Plain),
        ("Datacenters", Kind::Plain),
        ("Hash", Kind::Plain),
        ("CreateIndex", Kind::Plain),
        ("ModifyIndex", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};
pub(in crate::http) const ROLE: Shape = Shape {
    fields: &[
        ("ID", Kind::Plain),
        ("Name", Kind::Plain),
        ("Description", Kind::Plain),
        ("Policies", Kind::List(&LINK)),
        ("ServiceIdentities", Kind::List(&SERVICE_IDENTITY)),
        ("NodeIdentities", Kind::List(&NODE_IDENTITY)),
        ("TemplatedPolicies", Kind::Plain),
        ("Hash", Kind::Plain),
        ("CreateIndex", Kind::Plain),
        ("ModifyIndex", Kind::Plain),
    ],
    aliases: &[],
    lax: false,
};

/// Reads a body, with Consul's words for one that cannot be.
pub(super) fn read<T: serde::de::DeserializeOwned>(
    what: &str,
    shape: &'static Shape,
    body: &[u8],
) -> Result<T, Error> {
    decode(shape, body).map_err(|error| {
        let text = error.text.strip_prefix("Request decode failed: ").unwrap_or(&error.text).to_owned();
        Error::bad(format!("{what} decoding failed: {text}"))
    })
}

impl TokenBody {
    pub(super) fn grants(&self, tables: &Tables, datacenter: &str) -> Result<Grants, Error> {
        no_templates(&self.templated_policies)?;
        Ok(Grants {
            policies: policies(&self.policies, tables)?,
            roles: linked(
                "role",
                &self.roles,
                |id| tables.role(id).is_some(),
                |name| tables.role_named(name).map(|entry| entry.value.id),
            )?,
            services: services(&self.service_identities)?,
            nodes: nodes(&self.node_identities, datacenter)?,
        })
    }
}

impl RoleBody {
    pub(super) fn grants(&self, tables: &Tables, datacenter: &str) -> Result<Grants, Error> {
        no_templates(&self.templated_policies)?;
        Ok(Grants {
            policies: policies(&self.policies, tables)?,
            roles: Vec::new(),
            services: services(&self.service_identities)?,
            nodes: nodes(&self.node_identities, datacenter)?,
        })
    }
}

fn no_templates(given: &[Value]) -> Result<(), Error> {
    match given.is_empty() {
        true => Ok(()),
        false => Err(Error::server(
            "TemplatedPolicies are not served; use ServiceIdentities, NodeIdentities or Policies",
        )),
    }
}

fn policies(links: &[Link], tables: &Tables) -> Result<Vec<Uuid>, Error> {
    linked(
        "policy",
        links,
        |id| tables.policy(id).is_some(),
        |name| tables.policy_named(name).map(|entry| entry.value.id),
    )
}

/// What links lead to, each once; a link that leads nowhere is an error.
fn linked(
    what: &str,
    links: &[Link],
    known: impl Fn(Uuid) -> bool,
    named: impl Fn(&str) -> Option<Uuid>,
) -> Result<Vec<Uuid>, Error> {
    at_most(what, links.len())?;
    let mut ids = Vec::new();
    for Link { id, name } in links {
        let found = match id.as_str() {
            "" => {
                named(name).ok_or_else(|| Error::server(format!("No such ACL {what} with name {name:?}")))?
            }
            text => Uuid::parse_str(text)
                .ok()
                .filter(|id| known(*id))
                .ok_or_else(|| Error::server(format!("No such ACL {what} with ID {text:?}")))?,
        };
        if !ids.contains(&found) {
            ids.push(found);
        }
    }
    Ok(ids)
}

fn at_most(what: &str, count: usize) -> Result<(), Error> {
    match count > LINKS_MAX {
        true => Err(Error::server(format!("{count} links of kind {what}; at most {LINKS_MAX} are allowed"))),
        false => Ok(()),
    }
}

fn services(bodies: &[ServiceIdentityBody]) -> Result<Vec<ServiceIdentity>, Error> {
    at_most("service identity", bodies.len())?;
    bodies
        .iter()
        .map(|ServiceIdentityBody { service_name: name, datacenters }| {
            identity("Service", name)?;
            Ok(ServiceIdentity { name: name.clone(), datacenters: datacenters.clone() })
        })
        .collect()
}

fn nodes(bodies: &[NodeIdentityBody], datacenter: &str) -> Result<Vec<NodeIdentity>, Error> {
    at_most("node identity", bodies.len())?;
    bodies
        .iter()
        .map(|NodeIdentityBody { node_name: name, datacenter: of }| {
            identity("Node", name)?;
            let of = if of.is_empty() { datacenter } else { of };
            Ok(NodeIdentity { name: name.clone(), datacenter: of.to_owned() })
        })
        .collect()
}

/// Consul's rule for names in identities: they are also a part of rules.
pub(super) fn identity(what: &str, name: &str) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::server(format!(
            "{what} identity is missing the {} name field on this object",
            what.to_lowercase()
        )));
    }
    let end = |c: Option<u8>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let middle = |c: u8| end(Some(c)) || matches!(c, b'-' | b'_');
    let (first, last) = (name.bytes().next(), name.bytes().last());
    if name.len() > 256 || !end(first) || !end(last) || !name.bytes().all(middle) {
        return Err(Error::server(format!(
            "{what} identity {name:?} has an invalid name. Only lowercase alphanumeric characters, '-' and '_' are allowed"
        )));
    }
    Ok(())
}

/// Consul's rule for names of policies and roles.
pub(super) fn name(what: &str, name: &str, max: usize) -> Result<(), Error> {
    if name.is_empty() {
        return Err(Error::server(format!("Invalid {what}: no Name is set")));
    }
    let fits = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    if name.len() > max || !name.bytes().all(fits) {
        return Err(Error::server(format!(
            "Invalid {what}: invalid Name. Only alphanumeric characters, '-' and '_' are allowed"
        )));
    }
    Ok(())
}

pub(super) fn check_rules(text: &str) -> Result<(), Error> {
    match rules::parse(text) {
        Ok(_) => Ok(()),
        Err(reason) => Err(Error::server(format!("Failed to parse ACL rules: {reason}"))),
    }
}
