//! Services and checks that files define, put together when all keys of all files are known.

use std::collections::HashMap;
use std::fmt;
use std::path::PathBuf;

use serde_json::Value as Json;

use super::{Config, ConfigError};
use crate::http;

/// Where a definition stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: PathBuf,
    pub(super) line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// A definition as a file has it.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) place: Place,
    /// The key it stands under: `service`, `services`, `check` or `checks`.
    pub(super) key: &'static str,
    pub(super) table: Json,
}

/// The keys of definitions, where `key` is one: one definition or a list of them.
pub(super) fn key(key: &str) -> Option<&'static str> {
    ["service", "services", "check", "checks"].into_iter().find(|known| *known == key)
}

/// Takes all definitions; errs with what is wrong in any.
pub(super) fn take(config: &mut Config, found: Vec<Found>, errors: &mut Vec<ConfigError>) {
    let mut taking = Taking { services: HashMap::new(), checks: HashMap::new(), config };
    // A check may stand before the service that it is of.
    let (services, checks): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|found| found.key.starts_with("service"));
    for Found { place, key, table } in services.into_iter().chain(checks) {
        let taken = if key.starts_with("service") {
            taking.service(&place, &table)
        } else {
            taking.check(&place, &table)
        };
        if let Err(reason) = taken {
            let reason = format!("[[{key}]]: {reason}");
            errors.push(ConfigError { file: place.file, line: place.line, reason });
        }
    }
}

struct Taking<'a> {
    config: &'a mut Config,
    /// Where each id was defined.
    services: HashMap<String, Place>,
    checks: HashMap<String, Place>,
}

impl Taking<'_> {
    fn service(&mut self, place: &Place, table: &Json) -> Result<(), String> {
        let (node, scripts) = (&self.config.node_name, self.config.checks.script);
        let (instance, checks, warnings) = http::service_of_file(table, node, scripts)?;
        let id = instance.id.as_str();
        if let Some(first) = self.services.get(id) {
            return Err(format!("the service id {id:?} is taken already, at {first}"));
        }
        if let Some((check, first)) = checks.iter().find_map(|check| {
            let id = check.id.as_str();
            Some((id, self.checks.get(id)?))
        }) {
            return Err(format!("the check id {check:?} is taken already, at {first}"));
        }
        self.services.insert(id.to_owned(), place.clone());
        self.checks.extend(checks.iter().map(|check| (check.id.as_str().to_owned(), place.clone())));
        self.config.warnings.extend(warnings.iter().map(|warning| format!("{place}: {warning}")));
        self.config.services.push((instance, checks));
        Ok(())
    }

    fn check(&mut self, place: &Place, table: &Json) -> Result<(), String> {
        let (node, scripts) = (&self.config.node_name, self.config.checks.script);
        let (check, warnings) = http::check_of_file(table, node, scripts)?;
        let id = check.id.as_str();
        if let Some(first) = self.checks.get(id) {
            return Err(format!("the check id {id:?} is taken already, at {first}"));
        }
        let list = match &check.instance {
            None => &mut self.config.node_checks,
            Some(of) => {
                let own = self.config.services.iter_mut().find(|(instance, _)| instance.id == *of);
                let own = own.ok_or_else(|| format!("no file defines the service id {:?}", of.as_str()))?;
                &mut own.1
            }
        };
        self.checks.insert(id.to_owned(), place.clone());
        self.config.warnings.extend(warnings.iter().map(|warning| format!("{place}: {warning}")));
        list.push(check);
        Ok(())
    }
}
