//! What a command needs of whoever asks. Pure: a view, a command and the state that it meets.
//!
//! It is asked twice. At once, of what is published, so that a flood of requests that may do nothing does not reach the writer; and by
//! the writer, of the state that the command is planned against, so that nothing that is under way gets between the question
//! and the change. Where access is not controlled neither looks at anything. What a refusal says is Consul's.

use uuid::Uuid;

use super::command::{Caller, Command, Refused, Seen};
use super::plan::not_there;
use super::snapshot::{CheckEntry, InstanceEntry, Snapshot};
use crate::acl::{Access, Denied, Resource, View};
use crate::model::{
    Check, CheckId, CheckKey, CheckKind, Instance, InstanceId, Node, NodeName, PreparedQuery, ServiceName,
};

/// Errs with what the asker lacks. What is not there needs nothing: to say so is the plan's; and the same is said of what an id
/// alone names, where the asker may not read it.
pub(super) fn permit(state: &Snapshot, view: &View, command: &Command) -> Result<(), Refused> {
    if view.is_open() {
        return Ok(());
    }
    let gate = Gate { state, view };
    match command {
        Command::RegisterInstance { caller, instance, checks, .. } => {
            gate.put_instance(instance)?;
            gate.make_node(caller)?;
            checks.iter().try_for_each(|check| gate.put_check(&instance.node, check, Some(instance)))?;
        }
        Command::RegisterCheck { caller, check } => {
            let mut node = &caller.node;
            match &check.instance {
                None => gate.write_node(node)?,
                // It may be on another node, where its checks are, too.
                Some(id) => {
                    if let Some(of) =
                        gate.instance(caller, id, &|| Refused::NoSuchInstance(id.to_string()))?
                    {
                        node = &of.instance.node;
                    }
                }
            }
            gate.put_check(node, check, None)?;
        }
        Command::DeregisterInstance { caller, id } | Command::Maintain { caller, instance: Some(id), .. } => {
            gate.instance(caller, id, &|| {
                not_there(caller, "service", id.as_str(), Refused::UnknownInstance)
            })?;
        }
        Command::Maintain { caller, instance: None, .. } => gate.write_node(&caller.node)?,
        Command::DeregisterCheck { caller, id } | Command::UpdateTtl { caller, id, .. } => {
            gate.check(caller, id)?;
        }
        Command::CatalogRegister { node, skip_node, instance, checks } => {
            gate.catalog_register(node, *skip_node, instance.as_ref(), checks)?;
        }
        Command::CatalogDeregister { node, instance, check } => {
            gate.catalog_deregister(node, instance.as_ref(), check.as_ref())?;
        }
        Command::PutQuery { query, .. } => {
            gate.query_of(query.id)?;
            gate.write_query(query)?;
        }
        Command::RemoveQuery { id } => gate.query_of(*id)?,
        Command::Route { service, .. } => gate.write_service(service)?,
        // They are about everything.
        Command::Import(_) | Command::SetFileDefinitions { .. } | Command::Acl(_) => {
            view.require(Resource::Acl, "", Access::Write)?;
        }
    }
    Ok(())
}

struct Gate<'a> {
    state: &'a Snapshot,
    view: &'a View,
}

impl<'a> Gate<'a> {
    fn write_service(&self, name: &ServiceName) -> Result<(), Denied> {
        self.view.require(Resource::Service, name.as_str(), Access::Write)
    }

    fn write_node(&self, name: &NodeName) -> Result<(), Denied> {
        self.view.require(Resource::Node, name.as_str(), Access::Write)
    }

    /// To change an instance is to write its service.
    fn write_present(&self, node: &NodeName, id: &InstanceId) -> Result<(), Denied> {
        let present = self.state.instance(node.folded(), id.as_str());
        present.map_or(Ok(()), |entry| self.write_service(&entry.instance.service))
    }

    /// The service of a check, where it is not one of its node's own.
    fn service_of(&self, check: &Check) -> Option<&'a ServiceName> {
        let of = self.state.instance(check.node.folded(), check.instance.as_ref()?.as_str());
        of.map(|of| &of.instance.service)
    }

    /// To change a check is to write what it is of: its service, else its node.
    fn write_check_on(&self, node: &NodeName, id: &CheckId) -> Result<(), Denied> {
        let present = self.state.check(&CheckKey { node: node.clone(), id: id.clone() });
        present.map_or(Ok(()), |entry| match self.service_of(&entry.check) {
            Some(service) => self.write_service(service),
            None => self.write_node(&entry.check.node),
        })
    }

    /// To change what an id alone names is to write its service, else its node.
    fn write_known(
        &self,
        service: Option<&ServiceName>,
        node: &NodeName,
        unknown: &dyn Fn() -> Refused,
    ) -> Result<(), Refused> {
        let (outcome, is_read) = match service {
            Some(name) => (self.write_service(name), self.view.reads_service(name.folded())),
            None => (self.write_node(node), self.view.reads_node(node.folded())),
        };
        outcome.map_err(|denied| if is_read { denied.into() } else { Refused::Hidden(Box::new(unknown())) })
    }

    /// The instance that a caller means. Which nodes have one of that id is told to those alone who may write them all.
    fn instance(
        &self,
        caller: &Caller,
        id: &InstanceId,
        unknown: &dyn Fn() -> Refused,
    ) -> Result<Option<&'a InstanceEntry>, Refused> {
        let write = |entry: &InstanceEntry| {
            self.write_known(Some(&entry.instance.service), &entry.instance.node, unknown)
        };
        match self.state.find_instance(caller, id.as_str()) {
            Ok(found) => {
                found.map_or(Ok(()), |entry| write(entry))?;
                Ok(found.map(|entry| &**entry))
            }
            Err(nodes) => {
                let mut all = nodes.iter().filter_map(|node| self.state.instance(node.folded(), id.as_str()));
                all.try_for_each(|entry| write(entry))?;
                Ok(None)
            }
        }
    }

    /// The same of a check.
    fn check(&self, caller: &Caller, id: &CheckId) -> Result<(), Refused> {
        let unknown = || not_there(caller, "check", id.as_str(), Refused::UnknownCheck);
        let write =
            |entry: &CheckEntry| self.write_known(self.service_of(&entry.check), &entry.check.node, &unknown);
        match self.state.find_check(caller, id.as_str()) {
            Ok(found) => found.map_or(Ok(()), |entry| write(entry)),
            Err(nodes) => {
                let key = |node: &NodeName| CheckKey { node: node.clone(), id: id.clone() };
                let mut all = nodes.iter().filter_map(|node| self.state.check(&key(node)));
                all.try_for_each(|entry| write(entry))
            }
        }
    }

    /// To register an instance is to write its service, and that of the one in whose place it comes.
    fn put_instance(&self, instance: &Instance) -> Result<(), Denied> {
        self.write_service(&instance.service)?;
        self.write_present(&instance.node, &instance.id)
    }

    /// A check may come in the place of somebody else's, and an alias shows what another instance or node tells.
    /// `with` is what is registered with it.
    fn put_check(&self, node: &NodeName, check: &Check, with: Option<&Instance>) -> Result<(), Denied> {
        self.write_check_on(node, &check.id)?;
        let CheckKind::Alias { node, instance } = &check.kind else { return Ok(()) };
        self.view.require(Resource::Node, node.as_str(), Access::Read)?;
        let Some(id) = instance else { return Ok(()) };
        if with.is_some_and(|with| with.id == *id && with.node == *node) {
            return Ok(());
        }
        let shown = match self.state.instance(node.folded(), id.as_str()) {
            Some(of) => self.view.reads_service(of.instance.service.folded()),
            // Whoever comes there later is shown, too.
            None => self.view.reads_services(),
        };
        // By the id that was given: whether it is there, and of which service, is not told.
        if shown { Ok(()) } else { Err(self.view.lacks(Resource::Service, id.as_str(), Access::Read)) }
    }

    /// A node that is not there yet is made. One with the name of the address that the call comes from is nobody's choice.
    fn make_node(&self, caller: &Caller) -> Result<(), Denied> {
        let known = self.state.node(caller.node.folded()).is_some();
        if known || caller.is_its_address() { Ok(()) } else { self.write_node(&caller.node) }
    }

    /// The catalog's own rules: a node that comes or changes, each service, and what each check is of.
    fn catalog_register(
        &self,
        node: &Node,
        skip_node: bool,
        instance: Option<&Instance>,
        checks: &[Seen],
    ) -> Result<(), Denied> {
        let here = self.state.node(node.name.folded());
        if !here.is_some_and(|entry| skip_node || *entry.node == *node) {
            self.write_node(&node.name)?;
        }
        instance.map_or(Ok(()), |instance| self.put_instance(instance))?;
        for Seen { check, .. } in checks {
            self.put_check(&node.name, check, instance)?;
            match &check.instance {
                None => self.write_node(&node.name)?,
                Some(id) if instance.is_some_and(|instance| instance.id == *id) => {}
                Some(id) => self.write_present(&node.name, id)?,
            }
        }
        Ok(())
    }

    /// Whoever may write the node may take away what it has; else what it is of decides.
    fn catalog_deregister(
        &self,
        node: &NodeName,
        instance: Option<&InstanceId>,
        check: Option<&CheckId>,
    ) -> Result<(), Denied> {
        let of_node = self.write_node(node);
        if of_node.is_ok() {
            return Ok(());
        }
        let on = |id: &InstanceId| self.state.instance(node.folded(), id.as_str());
        let of = match (instance, check) {
            (Some(id), _) => on(id),
            (None, Some(id)) => {
                let check = self.state.check(&CheckKey { node: node.clone(), id: id.clone() });
                check.and_then(|entry| entry.check.instance.as_ref()).and_then(on)
            }
            (None, None) => None,
        };
        match of.map(|entry| &entry.instance.service) {
            Some(service) if self.view.reads_service(service.folded()) => self.write_service(service),
            // Of one that may not be read, what is said where there is none.
            _ => of_node,
        }
    }

    /// Whoever may write the query that is there may put another in its place, or take it away.
    fn query_of(&self, id: Uuid) -> Result<(), Denied> {
        self.state.query(id).map_or(Ok(()), |old| self.write_query(&old.query))
    }

    /// Prepared queries are guarded by their names; one without is known to those who have its id.
    fn write_query(&self, query: &PreparedQuery) -> Result<(), Denied> {
        match query.name.is_empty() && query.template.is_none() {
            true => Ok(()),
            false => self.view.require(Resource::Query, &query.name, Access::Write),
        }
    }
}
