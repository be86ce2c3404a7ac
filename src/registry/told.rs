//! What the audit log is told of: the record that a definition is about as it stands, what a command does and to what.

use uuid::Uuid;

use super::command::{AclCommand, Command, Refused, Steer};
use super::snapshot::Snapshot;
use crate::audit::Outcome;
use crate::model::{Acl, AclKey, AclKind, CheckKey, Key, Maintenance, Record};

impl Snapshot {
    /// The record of this key.
    pub(super) fn record(&self, key: &Key) -> Option<Record> {
        Some(match key {
            Key::Node(node) => Record::Node(self.node(node.folded())?.node.clone()),
            Key::Instance(node, id) => {
                Record::Instance(self.instance(node.folded(), id.as_str())?.instance.clone())
            }
            Key::Check(node, id) => {
                let key = CheckKey { node: node.clone(), id: id.clone() };
                Record::Check(self.check(&key)?.check.clone())
            }
            Key::Maintenance(node, instance) => {
                let reason = match instance {
                    Some(id) => self.instance(node.folded(), id.as_str())?.maintenance.clone()?,
                    None => self.node(node.folded())?.maintenance.clone()?,
                };
                Record::Maintenance(Maintenance { node: node.clone(), instance: instance.clone(), reason })
            }
            Key::Query(id) => Record::Query(self.query(*id)?.query.clone()),
            Key::Route(service) => Record::Route(self.route_of(service.folded())?.route.clone()),
            Key::Acl(key) => Record::Acl(self.acl_record(key)?),
        })
    }

    fn acl_record(&self, key: &AclKey) -> Option<Acl> {
        let (tables, id) = (self.acl(), Uuid::parse_str(&key.id).unwrap_or_default());
        Some(match key.kind {
            AclKind::Token => Acl::Token(tables.token(id)?.value.clone()),
            AclKind::Policy => Acl::Policy(tables.policy(id)?.value.clone()),
            AclKind::Role => Acl::Role(tables.role(id)?.value.clone()),
            AclKind::Rule => Acl::Rule(tables.rule(id)?.value.clone()),
            AclKind::Method => Acl::Method(tables.method(&key.id)?.value.clone()),
            AclKind::Bootstrapped => tables.bootstrapped().map(|_| Acl::Bootstrapped)?,
            AclKind::Own => Acl::Own { name: key.id.clone(), secret: tables.own(&key.id)?.clone() },
        })
    }
}

impl Command {
    /// What it does, in a word.
    pub(super) fn action(&self) -> &'static str {
        match self {
            Self::RegisterInstance { .. } => "register-instance",
            Self::DeregisterInstance { .. } => "deregister-instance",
            Self::RegisterCheck { .. } => "register-check",
            Self::DeregisterCheck { .. } => "deregister-check",
            Self::Maintain { reason: Some(_), .. } => "begin-maintenance",
            Self::Maintain { reason: None, .. } => "end-maintenance",
            Self::UpdateTtl { .. } => "update-check",
            Self::CatalogRegister { .. } => "catalog-register",
            Self::CatalogDeregister { .. } => "catalog-deregister",
            Self::PutQuery { .. } => "put-query",
            Self::RemoveQuery { .. } => "remove-query",
            Self::Route { steer, .. } => match steer {
                Steer::Set { .. } => "set-route",
                Steer::Undo { .. } => "undo-route",
                Steer::Clear => "clear-route",
                Steer::Bring(_) => "import",
            },
            Self::Import(_) => "import",
            Self::SetFileDefinitions { .. } => "configuration-file",
            Self::Acl(AclCommand::Bootstrap { .. }) => "acl-bootstrap",
            Self::Acl(AclCommand::Put { .. }) => "acl-put",
            Self::Acl(AclCommand::Remove(_)) => "acl-remove",
        }
    }

    /// What it is about, if that is one thing.
    pub(super) fn about(&self) -> Option<Key> {
        Some(match self {
            Self::RegisterInstance { instance, .. } => {
                Key::Instance(instance.node.clone(), instance.id.clone())
            }
            Self::DeregisterInstance { caller, id } => Key::Instance(caller.node.clone(), id.clone()),
            Self::RegisterCheck { caller, check } => Key::Check(caller.node.clone(), check.id.clone()),
            Self::DeregisterCheck { caller, id } | Self::UpdateTtl { caller, id, .. } => {
                Key::Check(caller.node.clone(), id.clone())
            }
            Self::Maintain { caller, instance, .. } => {
                Key::Maintenance(caller.node.clone(), instance.clone())
            }
            Self::CatalogRegister { node, instance, .. } => match instance {
                Some(instance) => Key::Instance(node.name.clone(), instance.id.clone()),
                None => Key::Node(node.name.clone()),
            },
            Self::CatalogDeregister { node, instance, check } => match (instance, check) {
                (Some(id), _) => Key::Instance(node.clone(), id.clone()),
                (None, Some(id)) => Key::Check(node.clone(), id.clone()),
                (None, None) => Key::Node(node.clone()),
            },
            Self::PutQuery { query, .. } => Key::Query(query.id),
            Self::RemoveQuery { id } => Key::Query(*id),
            Self::Route { service, .. } => Key::Route(service.clone()),
            Self::Import(brought) => match (&brought.instance, &brought.node) {
                (Some(instance), _) => Key::Instance(instance.node.clone(), instance.id.clone()),
                (None, Some(node)) => Key::Node(node.name.clone()),
                (None, None) => return None,
            },
            Self::SetFileDefinitions { .. } => return None,
            Self::Acl(AclCommand::Bootstrap { token }) => {
                Key::Acl(AclKey::new(AclKind::Token, &token.accessor))
            }
            Self::Acl(AclCommand::Put { record, .. }) => Key::Acl(record.key()),
            Self::Acl(AclCommand::Remove(key)) => Key::Acl(key.clone()),
        })
    }
}

/// What a refusal is.
pub(super) fn outcome(refused: &Refused) -> Outcome {
    match refused {
        Refused::Denied(_) | Refused::Hidden(_) | Refused::Bootstrapped(_) => Outcome::Denied,
        Refused::Unavailable(_) | Refused::Busy { .. } => Outcome::Error,
        _ => Outcome::Refused,
    }
}
