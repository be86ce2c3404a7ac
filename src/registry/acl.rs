//! What a change of access control comes to. Pure, like [`plan`](super::plan): a refusal changes nothing.

use uuid::Uuid;

use super::command::{AclCommand, Refused};
use super::plan::{Plan, limit};
use crate::acl::{ANONYMOUS, Tables, is_builtin};
use crate::model::acl::Token;
use crate::model::{Acl, AclKey, AclKind, Definition, Key, Record};

/// UUIDs that begin so are kept for what is always there.
const RESERVED: u128 = 0xff;

/// Plans a change.
pub(super) fn plan(tables: &Tables, command: AclCommand, max: usize, plan: &mut Plan) -> Result<(), Refused> {
    match command {
        AclCommand::Bootstrap { token } => {
            if let Some(index) = tables.bootstrapped() {
                return Err(Refused::Bootstrapped(index));
            }
            room(tables, max)?;
            put(Acl::Token(token), plan);
            put(Acl::Bootstrapped, plan);
        }
        AclCommand::Put { record, create } => {
            check(tables, &record, create)?;
            if create {
                room(tables, max)?;
            }
            put(record, plan);
        }
        AclCommand::Remove(key) => remove(tables, key, plan)?,
    }
    Ok(())
}

fn put(record: Acl, plan: &mut Plan) {
    plan.definitions.push(Definition::Put(Record::Acl(record)));
}

fn take_out(key: AclKey, plan: &mut Plan) {
    plan.definitions.push(Definition::Remove(Key::Acl(key)));
}

fn room(tables: &Tables, max: usize) -> Result<(), Refused> {
    limit(
        "tokens, policies, roles, auth methods and binding rules:",
        tables.len() + 1,
        max,
        "acl_entries_max",
    )
}

fn invalid(text: impl Into<String>) -> Refused {
    Refused::AclInvalid(text.into())
}

fn check(tables: &Tables, record: &Acl, create: bool) -> Result<(), Refused> {
    match record {
        Acl::Token(token) => check_token(tables, token, create),
        Acl::Policy(policy) => {
            if is_builtin(policy.id) {
                return Err(invalid(format!("Changing the builtin {} policy is not permitted", policy.name)));
            }
            let known = tables.policy(policy.id).is_some();
            let other = tables.policy_named(&policy.name).filter(|entry| entry.value.id != policy.id);
            known_or_new("policy", policy.id, known, create)?;
            unused("Policy", &policy.name, other.is_some())
        }
        Acl::Role(role) => {
            let known = tables.role(role.id).is_some();
            let other = tables.role_named(&role.name).filter(|entry| entry.value.id != role.id);
            known_or_new("role", role.id, known, create)?;
            unused("Role", &role.name, other.is_some())
        }
        Acl::Method(method) => {
            let known = tables.method(&method.name);
            match (known, create) {
                (Some(_), true) => unused("Auth Method", &method.name, true),
                (None, false) => {
                    Err(Refused::AclNotFound(format!("Cannot find auth method {:?}", method.name)))
                }
                (Some(entry), false) if entry.value.kind != method.kind => {
                    let name = &method.name;
                    Err(invalid(format!(
                        "Changing an auth method's type is not permitted (auth method {name:?})"
                    )))
                }
                _ => Ok(()),
            }
        }
        Acl::Rule(rule) => {
            let known = tables.rule(rule.id);
            known_or_new("binding rule", rule.id, known.is_some(), create)?;
            if tables.method(&rule.method).is_none() {
                return Err(invalid(format!("auth method {:?} not found", rule.method)));
            }
            if known.is_some_and(|entry| entry.value.method != rule.method) {
                return Err(invalid("the auth method of a binding rule cannot be changed"));
            }
            Ok(())
        }
        Acl::Bootstrapped | Acl::Own { .. } => Ok(()),
    }
}

fn known_or_new(what: &str, id: Uuid, known: bool, create: bool) -> Result<(), Refused> {
    if known == create {
        let text = if create {
            format!("{what} {id} is already in use")
        } else {
            format!("cannot find {what} {id}")
        };
        return Err(if create { invalid(text) } else { Refused::AclNotFound(text) });
    }
    Ok(())
}

fn unused(what: &str, name: &str, used: bool) -> Result<(), Refused> {
    match used {
        true => Err(invalid(format!("Invalid {what}: A {what} with Name {name:?} already exists"))),
        false => Ok(()),
    }
}

fn check_token(tables: &Tables, token: &Token, create: bool) -> Result<(), Refused> {
    if let Some(method) = &token.method
        && tables.method(method).is_none()
    {
        return Err(Refused::AclNotFound(format!("auth method {method:?} not found")));
    }
    let Some(old) = tables.token(token.accessor).map(|entry| &entry.value) else {
        if !create {
            return Err(Refused::AclNotFound(format!("Cannot find token \"{}\"", token.accessor)));
        }
        let secret = token.secret.reveal();
        let reserved = |id: Uuid| id.as_u128() <= RESERVED;
        if reserved(token.accessor) || Uuid::parse_str(secret).is_ok_and(reserved) {
            return Err(invalid(
                "Invalid Token: UUIDs with the prefix \"00000000-0000-0000-0000-0000000000\" are reserved",
            ));
        }
        if tables.token_of(secret).is_some() {
            return Err(invalid("Invalid Token: SecretID is already in use"));
        }
        return Ok(());
    };
    if create {
        return Err(invalid("Invalid Token: AccessorID is already in use"));
    }
    if old.secret != token.secret {
        return Err(invalid("Changing a token's SecretID is not permitted"));
    }
    if old.expires != token.expires {
        return Err(invalid("Cannot change expiration time"));
    }
    if old.local != token.local {
        return Err(invalid(format!("Cannot toggle local mode of {}", token.accessor)));
    }
    Ok(())
}

fn remove(tables: &Tables, key: AclKey, plan: &mut Plan) -> Result<(), Refused> {
    let id = Uuid::parse_str(&key.id).unwrap_or_default();
    match key.kind {
        AclKind::Token if id == ANONYMOUS => {
            return Err(invalid("Delete operation not permitted on the anonymous token"));
        }
        AclKind::Policy if is_builtin(id) => {
            return Err(invalid("Delete operation not permitted on a builtin policy"));
        }
        // With a method go the tokens that came by it, and the rules on it.
        AclKind::Method => {
            let name = key.id.as_str();
            let tokens = tables.tokens().filter(|entry| entry.value.method.as_deref() == Some(name));
            tokens.for_each(|entry| take_out(AclKey::new(AclKind::Token, &entry.value.accessor), plan));
            let rules = tables.rules().filter(|entry| entry.value.method == name);
            rules.for_each(|entry| take_out(AclKey::new(AclKind::Rule, &entry.value.id), plan));
        }
        _ => {}
    }
    let known = match key.kind {
        AclKind::Token => tables.token(id).is_some(),
        AclKind::Policy => tables.policy(id).is_some(),
        AclKind::Role => tables.role(id).is_some(),
        AclKind::Rule => tables.rule(id).is_some(),
        AclKind::Method => tables.method(&key.id).is_some(),
        AclKind::Own => tables.own(&key.id).is_some(),
        AclKind::Bootstrapped => tables.bootstrapped().is_some(),
    };
    // What is not there is gone already.
    if known {
        take_out(key, plan);
    }
    Ok(())
}
