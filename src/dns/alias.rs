//! Names of ours that answers lead to (host names of instances, aliases of zones): they are looked up here, never asked
//! of others.
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
        live.answer.tailored |= found.answer.tailored;
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
    live.answer.answers.iter().any(|record| record.record_type() == RecordType::CNAME)
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use hickory_proto::op::ResponseCode;
    use hickory_proto::rr::rdata::{A, CNAME};
    use hickory_proto::rr::{DNSClass, Name, RData, Record};

    use super::super::encode::Answer;
    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    fn question(text: &str) -> Question {
        Question { name: name(text), kind: RecordType::A, class: DNSClass::IN }
    }

    fn live(answers: Vec<Record>, hosts: &[&str]) -> Live {
        let answer = Answer { answers, ..Answer::default() };
        Live { answer, hosts: hosts.iter().map(|host| name(host)).collect(), ttl: 5, of_zone: false }
    }

    fn cname(owner: &str, target: &str) -> Live {
        live(vec![Record::from_rdata(name(owner), 5, RData::CNAME(CNAME(name(target))))], &[target])
    }

    fn a(owner: &str, ttl: u32, last: u8) -> Record {
        Record::from_rdata(name(owner), ttl, RData::A(A(Ipv4Addr::new(10, 0, 0, last))))
    }

    /// `a` is an alias of `b`, which has an address and two hosts; `c` has two hosts, one of them nobody's.
    fn world(question: &Question) -> Option<Live> {
        match question.name.to_ascii().as_str() {
            "a." => Some(cname("a.", "b.")),
            "b." => Some(live(vec![a("b.", 5, 1)], &["d.", "else."])),
            "c." => Some(live(Vec::new(), &["d.", "else.", "gone."])),
            "d." => Some(live(vec![a("d.", 600, 2)], &[])),
            "gone." => Some(Answer::code(ResponseCode::NXDomain).into()),
            _ => None,
        }
    }

    fn followed(text: &str) -> Live {
        let question = question(text);
        follow(world(&question).unwrap(), &question, world)
    }

    #[test]
    fn behind_an_alias_records_keep_their_owners() {
        let found = followed("a.");
        let owners: Vec<_> = found.answer.answers.iter().map(|record| record.name.to_ascii()).collect();
        assert_eq!(owners, ["a.", "b.", "b."], "d's address is one of b's");
        assert!(found.hosts.is_empty(), "what is nobody's could only be given under a's name");
    }

    #[test]
    fn addresses_are_flattened_and_strangers_left_to_be_asked() {
        let found = followed("c.");
        assert_eq!(found.answer.answers, [a("c.", 5, 2)], "and live no longer than ours");
        assert_eq!(found.hosts, [name("else.")]);
        assert_eq!(
            found.answer.rcode,
            ResponseCode::NoError,
            "one host that is gone does not hide the others"
        );
    }

    #[test]
    fn a_name_is_looked_up_once_and_so_many_at_most() {
        let calls = std::cell::Cell::new(0);
        let everywhere: Vec<String> = (0..40).map(|i| format!("s{i}.")).collect();
        let hosts: Vec<&str> = everywhere.iter().map(String::as_str).collect();
        let look_up = |_: &Question| {
            calls.set(calls.get() + 1);
            Some(live(Vec::new(), &hosts))
        };
        follow(live(Vec::new(), &hosts), &question("s0."), look_up);
        assert_eq!(calls.get(), NAMES_MAX - 1);
    }
}
