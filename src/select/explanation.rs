//! An answer, and why it is that: plain values that can be shown, made of what [`why`](super::why) tells.
//!
//! What a name means is known in `dns`, where explanations are made; `http`, which shows them, is given a function
//! ([`Explainer`]). Texts are sentences for people, in the words of the configuration and of Consul's API.

use std::net::IpAddr;
use std::time::Duration;

use super::near::{Nearness, Place};
use super::why::{Considered, Pace, Why};
use super::{Family, Reached, Settings};
use crate::acl::View;
use crate::model::name::of_service;
use crate::model::{CheckKind, InstanceId, NodeName, ServiceName};
use crate::registry::CheckEntry;
use crate::telemetry::utc;

/// Explains what DNS would answer; the view is that of whoever wants to know. Errs with what is wrong with the question.
pub type Explainer = Box<dyn Fn(&Inquiry, &View) -> Result<Explanation, String> + Send + Sync>;

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inquiry {
    /// A name, or that of a service alone.
    pub name: String,
    /// A record type; `A` where it is empty.
    pub kind: String,
    /// Who asks DNS.
    pub from: IpAddr,
}

/// What DNS answers, and why. Records are in the form of master files (RFC 1035 section 5).
#[derive(Debug, Clone, Default)]
pub struct Explanation {
    /// The question as it was understood.
    pub name: String,
    pub kind: String,
    /// `NOERROR`, `NXDOMAIN` and so on; empty where others are asked.
    pub rcode: String,
    pub answers: Vec<String>,
    pub authorities: Vec<String>,
    pub additionals: Vec<String>,
    /// Octets of the whole answer.
    pub octets: usize,
    pub index: u64,
    pub serial: u32,
    /// What the name is, and what was done, in this order.
    pub said: Vec<String>,
    /// Of a service.
    pub service: Option<ServiceName>,
    /// Seconds, and why so many; none where no service is asked for.
    pub ttl: Option<(u32, String)>,
    /// By node and id.
    pub instances: Vec<Judged>,
}

/// What became of one instance.
#[derive(Debug, Clone)]
pub struct Judged {
    pub node: NodeName,
    pub id: InstanceId,
    /// Where it is reached; empty where nowhere.
    pub addresses: Vec<String>,
    pub port: u16,
    pub weight: u16,
    pub why: Why,
    /// The same in a sentence.
    pub told: String,
}

/// What a sentence on an instance needs to know of the question.
pub struct Context<'a> {
    pub settings: &'a Settings,
    pub service: &'a ServiceName,
    pub tag: Option<&'a str>,
    pub from: Place<'a>,
    pub family: Family,
    /// Until when the service's guard holds at most, in seconds since 1970.
    pub guarded: Option<u32>,
}

impl Judged {
    /// Tells of an instance.
    pub fn of(context: &Context<'_>, considered: &Considered<'_>) -> Self {
        let instance = &considered.entry.instance;
        Self {
            node: instance.node.clone(),
            id: instance.id.clone(),
            addresses: addresses(&considered.reached),
            port: instance.port,
            weight: considered.weight,
            why: considered.why,
            told: told(context, considered),
        }
    }
}

fn addresses(reached: &Reached<'_>) -> Vec<String> {
    let v4 = reached.v4.map(|ip| ip.to_string());
    let v6 = reached.v6.map(|ip| ip.to_string());
    v4.into_iter().chain(v6).chain(reached.host.map(str::to_owned)).collect()
}

fn told(context: &Context<'_>, considered: &Considered<'_>) -> String {
    let instance = &considered.entry.instance;
    match considered.why {
        Why::Passing => healthy(considered) + &tempered(considered),
        Why::Warning => {
            format!("weight {} for {}{}", considered.weight, worst(considered), tempered(considered))
        }
        Why::Guarded => {
            let until = context.guarded.map_or_else(String::new, utc::to_the_second);
            let worst = worst(considered);
            format!("kept until {until} at most, since too many instances failed at once ([guard]); {worst}")
        }
        Why::Spared => {
            "its circuit is open, but nobody else is left of those that the name is about ([breaker])"
                .to_owned()
        }
        Why::ByName => {
            let host = considered.reached.host.unwrap_or_default();
            format!("its address is the host name {host}, whose addresses are looked up")
        }
        Why::Untagged => {
            let tags: Vec<&str> = instance.tags.iter().collect();
            let has = if tags.is_empty() { "none".to_owned() } else { tags.join(", ") };
            format!("lacks the tag {:?}; it has {has}", context.tag.unwrap_or_default())
        }
        Why::Hidden => "the token of DNS may not read its node".to_owned(),
        Why::Unwanted => "its tags or meta are not what the prepared query wants".to_owned(),
        Why::Nowhere => "its node is not registered".to_owned(),
        Why::Maintenance => maintained(considered),
        Why::Critical => worst(considered),
        Why::Broken => {
            "its circuit is open: too many requests to it failed, as callers report ([breaker])".to_owned()
        }
        Why::NotPassing => format!("the prepared query wants only what passes: {}", worst(considered)),
        Why::Unrouted => "the service's route gives it no share".to_owned(),
        Why::Farther => farther(context, considered),
        Why::Unreachable => match context.family {
            Family::V4 => "has no IPv4 address".to_owned(),
            Family::V6 => "has no IPv6 address".to_owned(),
            Family::Any => "has no address".to_owned(),
        },
        Why::Unresolved => {
            let host = considered.reached.host.unwrap_or_default();
            format!(
                "its address is the host name {host}, and nothing is forwarded for this client ([forward])"
            )
        }
        Why::Textless => "has no meta, of which TXT records are made".to_owned(),
        Why::NotDrawn => {
            let Some(limit) = context.settings.a_limit(context.service.folded()) else {
                return "an answer of addresses holds one subset of the route, and this time another was drawn".to_owned();
            };
            format!(
                "an answer has at most {limit} addresses ([dns] a_limit), and this time others were drawn"
            )
        }
    }
}

/// Why it has not its whole weight.
fn tempered(considered: &Considered<'_>) -> String {
    match (considered.trial, considered.eased) {
        (true, _) => {
            "; its circuit is half open: it has the lowest weight until callers report ([breaker])".to_owned()
        }
        (false, Some(percent)) => {
            format!("; it starts slowly, and has {percent} percent of its weight yet ([slow_start])")
        }
        (false, None) => String::new(),
    }
}

fn healthy(considered: &Considered<'_>) -> String {
    let checks = considered.entry.checks.len() + considered.node.map_or(0, |node| node.own_checks.len());
    match checks {
        0 => "has no checks, so it passes".to_owned(),
        1 => "its check passes".to_owned(),
        checks => format!("all {checks} checks pass"),
    }
}

/// The check that decides: the worst, and of those the one that has been so for longest.
fn worst(considered: &Considered<'_>) -> String {
    let own = considered.entry.checks.iter();
    let of_node = considered.node.into_iter().flat_map(|node| &node.own_checks);
    let all = own.chain(of_node);
    let worst = all.max_by_key(|entry| (entry.status, std::cmp::Reverse(entry.since)));
    worst.map_or_else(|| "a check of it".to_owned(), |entry| check(entry))
}

fn check(entry: &CheckEntry) -> String {
    let whose = if entry.check.instance.is_none() { "the node's check" } else { "check" };
    let since = match entry.since {
        0 => "since before this server began".to_owned(),
        since => format!("since {}", utc::to_the_second(since)),
    };
    let said = entry.output.lines().map(str::trim).find(|line| !line.is_empty());
    let said = said.map_or_else(String::new, |line| {
        let short: String = line.chars().take(OUTPUT_CHARS).collect();
        format!(": {short}")
    });
    format!("{whose} {} is {} {since}{said}", entry.check.id, entry.status)
}

/// Of a check's output, as much as a sentence takes.
const OUTPUT_CHARS: usize = 160;

fn maintained(considered: &Considered<'_>) -> String {
    let of_node = considered.node.and_then(|node| node.maintenance.as_ref());
    let (whose, reason) = match (&considered.entry.maintenance, of_node) {
        (Some(reason), _) => ("in maintenance", reason.as_str()),
        (None, Some(reason)) => ("its node is in maintenance", reason.as_str()),
        (None, None) => ("in maintenance", ""),
    };
    if reason.is_empty() { whose.to_owned() } else { format!("{whose}: {reason}") }
}

fn farther(context: &Context<'_>, considered: &Considered<'_>) -> String {
    let least = context.settings.nearest(context.service.folded()).unwrap_or(1);
    let place = considered.node.map(|node| Place::of(considered.entry, node)).unwrap_or_default();
    let how = match considered.nearness {
        Nearness::Node => "on the client's node",
        Nearness::Zone => "in the client's zone",
        Nearness::Region => "in the client's region, in another zone",
        Nearness::Away => "elsewhere",
    };
    format!(
        "it is {how} ({}), the client in {}; at least {least} nearer ones answer ([dns] nearest)",
        placed(place),
        placed(context.from)
    )
}

fn placed(place: Place<'_>) -> String {
    match (place.region, place.zone) {
        ("", "") => "no known place".to_owned(),
        (region, "") => region.to_owned(),
        (region, zone) => format!("{region}/{zone}"),
    }
}

/// Why an answer's TTL is what it is.
pub fn paced(settings: &Settings, service: &ServiceName, of_query: bool, pace: &Pace<'_>) -> String {
    let by = match () {
        () if of_query => "the prepared query's ttl",
        () if of_service(&settings.service_ttl, service.folded()).is_some() => "[dns] service_ttl",
        () => "[dns] ttl",
    };
    let ceiling = format!("{:?} ({by})", pace.ceiling);
    match pace.soonest {
        None => format!("the ceiling, {ceiling}: no check can change a status sooner"),
        Some((entry, after)) => format!(
            "check {} can change a status within {after:?} ({} of {:?} until then); the ceiling is {ceiling}",
            entry.key(),
            results(entry),
            interval(entry),
        ),
    }
}

fn results(entry: &CheckEntry) -> String {
    match (&entry.check.kind, entry.to_flip.max(1)) {
        (CheckKind::Ttl { .. }, _) => "one term".to_owned(),
        (_, 1) => "one interval".to_owned(),
        (_, more) => format!("{more} intervals"),
    }
}

fn interval(entry: &CheckEntry) -> Duration {
    match entry.check.kind {
        CheckKind::Ttl { ttl } => ttl,
        _ => entry.check.interval,
    }
}
