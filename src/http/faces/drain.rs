//! Takes an instance out of answers and says when it is safe to stop it: `PUT /v1/rollcall/drain/{id}`.
//!
//! It goes into maintenance, or with `?deregister` it goes. What is proved then: that every thread of DNS and every answer under way
//! has left the snapshots from before ([`Proof`]), and that caches have given up what they had by the longest TTL it can have had
//! ([`longest_ttl`]). What cannot be proved is named. `?wait=` answers when it is safe, or the time is over. Nothing is
//! kept between requests: each proves anew, so that one never builds on what another has undone.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::State as Extract;
use axum::http::StatusCode;
use axum::response::Response;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;

use super::Place;
use crate::http::agent::service::known_id;
use crate::http::door::caller::Whose;
use crate::http::error::Error;
use crate::http::query::Params;
use crate::http::route::{self, Rest};
use crate::http::{Config, State, text};
use crate::model::{Change, Definition, Instance, InstanceId, Key, NodeName, Record, duration};
use crate::registry::readers::{Progress, Proof};
use crate::registry::{Command, Published, Snapshot};
use crate::select::longest_ttl;
use crate::telemetry::utc;

/// The longest `?wait=`.
const WAIT_MAX: Duration = Duration::from_secs(86_400);
/// How long an answer is put off for DNS to leave, whatever the wait: its threads look up ten times a second.
const LEAVE_WITHIN: Duration = Duration::from_secs(1);
/// How often a proof is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);
/// Of a reason.
const REASON_OCTETS_MAX: usize = 1024;
/// Batches that had begun by settings from before are sent by then.
const BATCH: Duration = Duration::from_secs(1);

/// What nobody can prove from here.
const NOT_PROVED: &[&str] = &[
    "clients and caches that keep answers for longer than their TTL, or connections that are open",
    "what was read over HTTP (the catalog, health, streams, http_sd), from zone transfers or another server",
    "answers of a server that ran here before this one, or of a prepared query whose TTL was longer, where those TTLs were longer",
];

/// Settings that were replaced, as long as caches may have answers by them.
#[derive(Default)]
pub(in crate::http) struct Former(Mutex<Vec<(Arc<Config>, Instant)>>);

impl Former {
    /// These are in force no more.
    pub(in crate::http) fn keep(&self, config: Arc<Config>) {
        let now = Instant::now();
        let mut all = self.0.lock();
        all.retain(|(config, at)| now.duration_since(*at) < config.settings.longest_ceiling() + BATCH);
        all.push((config, now));
    }

    /// How long caches may yet have answers with an instance of the service, if none is given from now on.
    fn longest(&self, snapshot: &Snapshot, service: &str, now: &Config) -> Duration {
        let all = self.0.lock();
        let left = all
            .iter()
            .map(|(config, at)| (config.settings.ceiling(service) + BATCH).saturating_sub(at.elapsed()));
        left.max().unwrap_or_default().max(longest_ttl(snapshot, &now.settings, service))
    }
}

/// One drain while it is asked for.
struct Drain {
    instance: Arc<Instance>,
    /// Of its maintenance: one that was there before stays.
    reason: Option<String>,
    deregister: bool,
    /// It was not registered when we last looked.
    gone: bool,
    index: u64,
    begun: Instant,
    proof: Proof,
    progress: Progress,
    left: Option<Left>,
}

/// That DNS has left.
struct Left {
    time: SystemTime,
    ttl: Duration,
    safe: Instant,
}

pub(super) async fn begin(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    Rest(id): Rest,
    params: Params,
) -> Result<Response, Error> {
    params.only(&["node", "reason", "deregister", "wait", "token", "dc"])?;
    let id = known_id(&id)?;
    let (wait, deregister) = (wait(&params)?, params.flag("deregister")?);
    let reason = params.get("reason").filter(|reason| !reason.is_empty()).unwrap_or("draining");
    if reason.len() > REASON_OCTETS_MAX {
        let text = format!("the reason has {} octets; at most {REASON_OCTETS_MAX} are allowed", reason.len());
        return Err(Error::bad(text));
    }
    text::prose("the reason", reason)?;
    let max = state.config.load().drains_max;
    let _place = Place::take(&state, &state.faces.drains, ("drains_max", max), "drains are under way")?;
    let found = state.registry.snapshot().find_instance(&caller, id.as_str()).ok().flatten().cloned();
    let command = match deregister {
        true => Command::DeregisterInstance { caller, id: id.clone() },
        false => Command::Maintain { caller, instance: Some(id.clone()), reason: Some(reason.into()) },
    };
    // From here on, so that nothing that follows is missed.
    let changes = state.registry.subscribe();
    params.asker.submit(&state, command).await?;
    let found = found.ok_or_else(|| just_now(&id))?;
    let drain = Drain {
        instance: found.instance.clone(),
        reason: match deregister {
            true => None,
            false => Some(found.maintenance.as_deref().unwrap_or(reason).to_owned()),
        },
        deregister,
        gone: deregister,
        index: state.registry.load().index(),
        begun: Instant::now(),
        proof: state.registry.proof(),
        progress: Progress::default(),
        left: None,
    };
    let drain = drain.prove(&state, wait, changes).await?;
    Ok(route::json(&drain.shown()))
}

pub(super) async fn end(
    Extract(state): Extract<Arc<State>>,
    Whose { caller, .. }: Whose,
    Rest(id): Rest,
    params: Params,
) -> Result<Response, Error> {
    params.only(&["node", "token", "dc"])?;
    let id = known_id(&id)?;
    let found = state.registry.snapshot().find_instance(&caller, id.as_str()).ok().flatten().cloned();
    let command = Command::Maintain { caller, instance: Some(id.clone()), reason: None };
    params.asker.submit(&state, command).await?;
    let found = found.ok_or_else(|| just_now(&id))?;
    let Instance { node, service, .. } = &*found.instance;
    let still = state.registry.snapshot().node(node.folded()).and_then(|node| node.maintenance.clone());
    Ok(route::json(&json!({
        "ID": id, "Node": node, "Service": service, "Ended": found.maintenance.as_deref(),
        "NodeReason": still.as_deref(),
    })))
}

fn just_now(id: &InstanceId) -> Error {
    Error::new(StatusCode::CONFLICT, format!("{id} was registered just now: do it again"))
}

fn wait(params: &Params) -> Result<Duration, Error> {
    let Some(text) = params.get("wait").filter(|text| !text.is_empty()) else { return Ok(Duration::ZERO) };
    let wait = duration::parse(text).map_err(|error| Error::bad(format!("Invalid wait: {error}")))?;
    match wait <= WAIT_MAX {
        true => Ok(wait),
        false => Err(Error::bad(format!("Invalid wait: {text:?} is more than a day"))),
    }
}

type Changes = tokio::sync::broadcast::Receiver<Arc<Published>>;

impl Drain {
    /// Returns when it is safe, the time is over or the server ends. Errs when the instance is back.
    async fn prove(mut self, state: &State, wait: Duration, mut changes: Changes) -> Result<Self, Error> {
        let until = self.begun + wait;
        loop {
            self.look(state);
            let now = Instant::now();
            let next = match &self.left {
                Some(left) if now >= left.safe.min(until) => return Ok(self),
                Some(left) => left.safe.min(until),
                None if now >= until.max(self.begun + LEAVE_WITHIN) => return Ok(self),
                None => now + LOOK_AGAIN,
            };
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                () = state.shutdown.cancelled() => return Ok(self),
                changed = changes.recv() => match changed {
                    Ok(published) if !self.undoes(&published) => {}
                    // The server ends.
                    Err(RecvError::Closed) => return Ok(self),
                    // Whatever was in between: from now on.
                    Ok(_) | Err(RecvError::Lagged(_)) => self.again(state)?,
                },
            }
        }
    }

    fn look(&mut self, state: &State) {
        if self.left.is_some() {
            return;
        }
        self.progress = self.proof.look();
        if self.progress.is_done() {
            let (now, config) = (Instant::now(), state.config.load());
            let service = self.instance.service.folded();
            let ttl = state.faces.former.longest(&state.registry.load(), service, &config);
            state.metrics.steering.left(now.duration_since(self.begun));
            self.left = Some(Left { time: SystemTime::now(), ttl, safe: now + ttl });
        }
    }

    /// Whether a publish has something that may have put it back, if only for a moment.
    fn undoes(&mut self, published: &Published) -> bool {
        let Instance { node, id, .. } = &*self.instance;
        let own = |of: &NodeName, other: &InstanceId| of == node && other == id;
        let (mut put, mut ended, mut removed) = (false, false, false);
        for change in &published.changes {
            let Change::Definition(definition) = change else { continue };
            match definition {
                Definition::Put(Record::Instance(instance)) => put |= own(&instance.node, &instance.id),
                Definition::Remove(Key::Instance(of, other)) => removed |= own(of, other),
                Definition::Remove(Key::Maintenance(of, Some(other))) => ended |= own(of, other),
                Definition::Remove(Key::Node(of)) => removed |= of == node,
                _ => {}
            }
        }
        // Registered anew it has no maintenance; else it keeps it.
        let undone = (put && (self.gone || removed)) || (ended && !removed);
        self.gone |= removed;
        undone
    }

    /// Begins the proof anew, if it is out.
    fn again(&mut self, state: &State) -> Result<(), Error> {
        let (snapshot, Instance { node, id, .. }) = (state.registry.snapshot(), &*self.instance);
        let entry = snapshot.instance(node.folded(), id.as_str());
        if entry.is_some_and(|entry| entry.maintenance.is_none()) {
            let text = format!("{id} on {node} was put back while it was drained");
            return Err(Error::new(StatusCode::CONFLICT, text));
        }
        (self.gone, self.index) = (entry.is_none(), snapshot.index());
        (self.proof, self.left) = (state.registry.proof(), None);
        Ok(())
    }

    fn shown(&self) -> Value {
        let Progress { threads, behind, waiting } = self.progress;
        let remaining = self.left.as_ref().map(|left| left.safe.saturating_duration_since(Instant::now()));
        let at = |time: SystemTime| utc::rfc3339(time);
        json!({
            "ID": self.instance.id,
            "Node": self.instance.node,
            "Service": self.instance.service,
            "Deregistered": self.deregister,
            "Reason": self.reason,
            "Index": self.index,
            "Threads": threads,
            "ThreadsBehind": behind,
            "AnswersUnderWay": waiting,
            "LeftAt": self.left.as_ref().map(|left| at(left.time)),
            "TTL": self.left.as_ref().map(|left| duration::format(left.ttl)),
            "SafeAt": remaining.map(|remaining| at(SystemTime::now() + remaining)),
            "Remaining": remaining.map(|remaining| duration::format(Duration::from_millis(remaining.as_millis() as u64))),
            "Safe": remaining.is_some_and(|remaining| remaining.is_zero()),
            "NotProved": NOT_PROVED,
        })
    }
}
