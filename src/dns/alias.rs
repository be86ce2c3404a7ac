//! Host names of instances that are names of ours: they are looked up here, never asked of others.
//!
//! Registrations may point at one another in circles, and each of many may point at many: a name is looked up once
//! for an answer, and an answer goes through so many names at most.

use std::collections::VecDeque;

use hickory_proto::rr::RecordType;

use super::live::Live;
use super::request::Question;

/// Names that one answer goes through.
const NAMES_MAX: usize = 16;

/// Adds what is known of the host names that `look_up` knows; those that it does not know stay to be asked of others.
/// Behind a CNAME records keep their owners, else they are flattened under the name that was asked for.
pub(super) fn follow(
    mut live: Live,
    question: &Question,
    look_up: impl Fn(&Question) -> Option<Live>,
) -> Live {
    let mut waiting = VecDeque::from(std::mem::take(&mut live.hosts));
    let mut seen = vec![question.name.clone()];
    // Under which name addresses are gathered; none while the chain consists of aliases.
    let mut owner = (!is_alias(&live)).then(|| question.name.clone());
    while let Some(host) = waiting.pop_front() {
        if seen.contains(&host) || seen.len() == NAMES_MAX {
            continue;
        }
        let asked = Question { name: host.clone(), ..question.clone() };
        let Some(found) = look_up(&asked) else {
            if owner.as_ref().is_none_or(|owner| *owner == question.name) {
                live.hosts.push(host);
            }
            continue;
        };
        seen.push(host.clone());
        let alias = is_alias(&found);
        for mut record in found.answer.answers {
            match &owner {
                Some(_) if record.record_type() != question.kind => continue,
                Some(owner) => record.name = owner.clone(),
                None => {}
            }
            record.ttl = record.ttl.min(live.ttl);
            if !live.answer.answers.contains(&record) {
                live.answer.answers.push(record);
            }
        }
        if owner.is_none() {
            // RFC 6604 section 3: the code is that of the last name.
            live.answer.rcode = found.answer.rcode;
            live.answer.authorities = found.answer.authorities;
            owner = (!alias).then_some(host);
        }
        waiting.extend(found.hosts);
    }
    if live.answer.answers.iter().any(|record| record.record_type() == question.kind) {
        live.answer.authorities.clear();
    }
    live
}

fn is_alias(live: &Live) -> bool {
    live.answer.answers.first().is_some_and(|record| record.record_type() == RecordType::CNAME)
}
