//! What our own node has without anybody's registration: the service `consul` and the node check `serfHealth`. Consul's clients
//! look for both. They are made at each start, are not stored, count towards no limit, and no request changes them.

use std::sync::Arc;

use super::apply::Effects;
use super::command::Refused;
use super::snapshot::Snapshot;
use crate::model::{
    Check, CheckId, CheckKind, Definition, Instance, InstanceId, NodeName, Observation, Origin, Record,
    ServiceName, Status, Terms,
};

/// The name and the id of the service under which Consul's servers find each other.
const SERVICE: &str = "consul";
/// Where Consul's servers speak to each other; nothing listens there.
const SERVICE_PORT: u16 = 8300;
const CHECK: &str = "serfHealth";
const CHECK_NAME: &str = "Serf Health Status";
const CHECK_OUTPUT: &str = "Agent alive and reachable";

impl Snapshot {
    /// Adds them to the own node, each where nothing of that id is there: what a client registered stays.
    pub(super) fn with_ours(mut self, own: &NodeName) -> Self {
        let (Ok(service), Ok(instance), Ok(check)) =
            (ServiceName::parse(SERVICE), InstanceId::parse(SERVICE), CheckId::parse(CHECK))
        else {
            return self;
        };
        // As old as the node, so that they look the same after a restart.
        let Some(index) = self.node(own.folded()).map(|node| node.create_index) else { return self };
        let (counts, tables, mut effects) = (self.counts, self.tables, Effects::default());
        if self.instance(own.folded(), SERVICE).is_none() {
            let record = Record::Instance(Arc::new(ours(own, instance, service)));
            self.define(index, &Definition::Put(record), &mut effects);
        }
        let alive = health(own, check);
        let key = alive.key();
        if self.check(&key).is_none() {
            self.define(index, &Definition::Put(Record::Check(alive)), &mut effects);
            let (status, output) = (Status::Passing, CHECK_OUTPUT.into());
            let seen = Observation { check: key, generation: None, status, output, to_flip: 1 };
            self.observe(index, &seen, &mut effects);
        }
        (self.counts, self.tables) = (counts, tables);
        self
    }
}

fn ours(own: &NodeName, id: InstanceId, service: ServiceName) -> Instance {
    Instance {
        node: own.clone(),
        id,
        service,
        tags: Default::default(),
        address: None,
        meta: Default::default(),
        port: SERVICE_PORT,
        weights: Default::default(),
        enable_tag_override: false,
        origin: Origin::Own,
        extras: Default::default(),
    }
}

fn health(own: &NodeName, id: CheckId) -> Check {
    let terms = Terms {
        name: CHECK_NAME.to_owned(),
        output_max: CHECK_OUTPUT.len(),
        ..Terms::unprobed(CheckKind::External, Status::Passing, Origin::Own)
    };
    Check { node: own.clone(), id, instance: None, terms: terms.into() }
}

/// Refuses to change what the configuration file owns, and what is our own.
pub(super) fn refuse(origin: Origin, kind: &'static str, id: &str) -> Result<(), Refused> {
    match origin {
        Origin::File => Err(Refused::FileOwned { kind, id: id.to_owned() }),
        Origin::Own => Err(Refused::Ours { kind, id: id.to_owned() }),
        Origin::Agent | Origin::Catalog => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Address, Definition, Node};

    fn with_node(own: &NodeName) -> Snapshot {
        let node = Node {
            name: own.clone(),
            id: None,
            address: Address::parse("192.0.2.1").unwrap(),
            tagged_addresses: Default::default(),
            meta: Default::default(),
            locality: None,
            implied: false,
        };
        Snapshot::default().applied(1, &[Definition::Put(Record::Node(node.into()))])
    }

    #[test]
    fn ours_are_there_count_nothing_and_are_not_stored() {
        let own = NodeName::parse("N1").unwrap();
        let state = with_node(&own).with_ours(&own);
        let node = state.node("n1").unwrap();
        assert_eq!(node.own_checks[0].output.as_str(), CHECK_OUTPUT);
        assert_eq!(node.own_checks[0].status, Status::Passing);
        assert_eq!(state.service("consul").unwrap().instances.len(), 1);
        assert_eq!((state.counts().instances, state.counts().checks), (0, [0, 0, 0]));
        let stored = state.stored();
        assert_eq!((stored.records.len(), stored.statuses.len()), (1, 0), "the node alone");
    }

    #[test]
    fn what_a_client_has_stored_stays() {
        let own = NodeName::parse("n1").unwrap();
        let mut theirs =
            ours(&own, InstanceId::parse("consul").unwrap(), ServiceName::parse("mine").unwrap());
        theirs.origin = Origin::Agent;
        let put = Definition::Put(Record::Instance(theirs.into()));
        let state = with_node(&own).applied(2, &[put]).with_ours(&own);
        assert!(state.service("consul").is_none());
        assert_eq!((state.service("mine").unwrap().instances.len(), state.counts().instances), (1, 1));
    }
}
