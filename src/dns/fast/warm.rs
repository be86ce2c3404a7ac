//! Templates before the first question: for a server that takes over under load, from one that had them all.
//!
//! Making a template costs several times an answer from it. A thread that began with none, at half the peak, would be behind
//! by more than its socket's buffer holds before it had those that are asked for.

use std::net::{IpAddr, Ipv4Addr};

use hickory_proto::rr::{Name, RecordType};
use hickory_proto::serialize::binary::BinEncodable;

use super::super::State;
use super::Fast;

/// Services whose templates are made, of those that come first; which ones are asked for is not known.
const SERVICES_MAX: usize = 16_384;

impl Fast {
    /// Makes the templates of A and SRV in the main domain.
    pub(in crate::dns) fn warm(&mut self, state: &State) {
        let snapshot = state.registry.snapshot();
        let Some(domain) = self.settings.domains.domains.first().cloned() else { return };
        let mut answer = Vec::new();
        for service in snapshot.services().take(SERVICES_MAX) {
            let Ok(name) = Name::from_labels([service.name.folded().as_bytes(), b"service"]) else {
                continue;
            };
            let Ok(name) = name.append_domain(&domain).and_then(|name| name.to_bytes()) else { continue };
            for kind in [RecordType::A, RecordType::SRV] {
                let mut message = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
                message.extend(&name);
                message.extend(u16::from(kind).to_be_bytes());
                message.extend([0, 1]);
                answer.clear();
                let mut questions = [self.read(&message)];
                self.look_up(&mut questions);
                let [Some(question)] = questions else { continue };
                // Nobody is answered: only what is kept of it counts.
                let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
                let _ = self.answer(&state.registry, &question, client, 0, &mut answer);
            }
        }
    }
}
