//! What a part of an import comes to: puts of what differs, and the statuses of checks that are new here.

use super::{Plan, Planner};
use crate::model::{CheckKind, Definition, Observation, Origin, Record};
use crate::registry::command::{Brought, Refused, Seen};

impl Planner<'_> {
    pub(super) fn import(&self, brought: Brought, plan: &mut Plan) -> Result<(), Refused> {
        let Brought { node, instance, checks, maintenance } = brought;
        if let Some(node) = node
            // Our own node is what the configuration says.
            && node.name != *self.own
        {
            self.put_node(node, plan)?;
        }
        let mut of = None;
        if let Some(instance) = instance {
            let here = self.state.instance(instance.node.folded(), instance.id.as_str());
            let own = here.is_some_and(|entry| entry.instance.origin == Origin::Agent);
            if own && instance.origin == Origin::Catalog {
                return Ok(());
            }
            of = Some((instance.node.clone(), instance.id.clone()));
            self.put_instance(instance, plan)?;
        }
        let (mut puts, mut seen) = (Vec::new(), Vec::new());
        for Seen { check, status, output } in checks {
            let key = check.key();
            let old = self.state.check(&key);
            let follows = matches!(check.kind, CheckKind::External);
            if old.is_none() || follows {
                seen.push(Observation { check: key, generation: None, status, output, to_flip: 1 });
            }
            // The status to start with says nothing about a check that has one.
            let same = old.is_some_and(|old| {
                check.clone().with(|terms| terms.initial = old.check.initial) == old.check
            });
            if !same {
                of = of.or_else(|| check.instance.clone().map(|id| (check.node.clone(), id)));
                puts.push(check);
            }
        }
        self.put_checks(of.as_ref(), puts, false, plan)?;
        plan.observations.extend(seen);
        for word in maintenance {
            let node = self.state.node(word.node.folded());
            let set = match &word.instance {
                None => node.is_some_and(|node| node.maintenance.is_some()),
                Some(id) => node
                    .and_then(|node| node.instances.get(id))
                    .is_some_and(|entry| entry.maintenance.is_some()),
            };
            if !set {
                plan.definitions.push(Definition::Put(Record::Maintenance(word)));
            }
        }
        Ok(())
    }
}
