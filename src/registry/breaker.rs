//! Circuit breakers: callers and gateways report how their requests to an instance ended, and one that fails too many of them is
//! out of answers for a while, whatever its checks find. Pure: time comes as an argument.
//!
//! The rule is that of the guide (and of most libraries): within a rolling window so many requests at least, of which so many percent failed,
//! open a circuit. After a while it is half open: the instance is given with the lowest weight until enough requests of that time are
//! reported to decide. Counts are kept for each reporter, since a report is a claim: where several report on a service, no
//! instance is taken out on the word of one, and never are more than half of a service's healthy instances out.
//!
//! A window is ten slots, so that what is counted goes back for nine tenths of it at least. What nobody reports on any more is
//! forgotten: a half-open circuit of which nobody is left to decide closes after [`SILENCE`] windows.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::guard::Member;
use crate::model::name::of_service;
use crate::model::{InstanceId, NodeName, ServiceName};

/// Who reports: a token, and an address or, of IPv6, its network. Both are seen, not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reporter {
    pub who: Option<Uuid>,
    pub client: Option<IpAddr>,
}

/// A value for all services, and others for some: by name in lower case or prefix and `*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting<T> {
    pub all: T,
    pub services: Vec<(String, T)>,
}

impl<T: Copy> Setting<T> {
    fn all(all: T) -> Self {
        Self { all, services: Vec::new() }
    }

    fn get(&self, service: &str) -> T {
        of_service(&self.services, service).copied().unwrap_or(self.all)
    }
}

/// When circuits open, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    pub window: Setting<Duration>,
    /// Requests within the window that it takes; 0: none ever opens.
    pub requests: Setting<u32>,
    /// Percent of them that failed, 1 to 100.
    pub failing: Setting<u8>,
    /// How long an instance is out.
    pub out: Setting<Duration>,
    /// Requests that decide on a half-open circuit.
    pub trial: Setting<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            window: Setting::all(Duration::from_secs(10)),
            requests: Setting::all(10),
            failing: Setting::all(60),
            out: Setting::all(Duration::from_secs(10)),
            trial: Setting::all(5),
        }
    }
}

/// What holds for one service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    window: Duration,
    requests: u64,
    failing: u64,
    out: Duration,
    trial: u64,
}

impl Settings {
    pub(super) fn rule(&self, service: &str) -> Rule {
        Rule {
            window: self.window.get(service),
            requests: self.requests.get(service).into(),
            failing: self.failing.get(service).into(),
            out: self.out.get(service),
            trial: self.trial.get(service).into(),
        }
    }
}

impl Rule {
    fn fails(&self, Counts { good, bad }: Counts) -> bool {
        bad > 0 && bad * 100 >= self.failing * (good + bad)
    }

    fn silence(&self) -> Duration {
        self.window.saturating_mul(SILENCE)
    }
}

/// Windows without a report on a service after which its half-open circuits close.
const SILENCE: u32 = 6;
/// Slots of a window.
const SLOTS: usize = 10;

/// A circuit that is not closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Circuit {
    /// The instance is out.
    Open,
    /// It is given with the lowest weight.
    HalfOpen,
}

/// One word for programs.
pub fn word(circuit: Option<Circuit>) -> &'static str {
    match circuit {
        None => "closed",
        Some(Circuit::Open) => "open",
        Some(Circuit::HalfOpen) => "half-open",
    }
}

/// What readers see of a service's circuits: those that are not closed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken(BTreeMap<Member, Circuit>);

impl Broken {
    pub fn circuit(&self, node: &NodeName, id: &InstanceId) -> Option<Circuit> {
        // Two clones of shared texts; asked only while a circuit of the service is not closed.
        self.0.get(&(node.clone(), id.clone())).copied()
    }

    /// How many are open, and half open.
    pub fn counts(&self) -> (usize, usize) {
        let open = self.0.values().filter(|circuit| **circuit == Circuit::Open).count();
        (open, self.0.len() - open)
    }
}

/// How requests ended.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    pub good: u64,
    pub bad: u64,
}

impl Counts {
    fn all(self) -> u64 {
        self.good + self.bad
    }

    fn add(&mut self, other: Self) {
        self.good = self.good.saturating_add(other.good);
        self.bad = self.bad.saturating_add(other.bad);
    }
}

/// What one reporter said of one instance within the window.
#[derive(Debug, Default)]
struct Tally {
    slots: [Counts; SLOTS],
    /// The number of the newest slot.
    newest: u64,
}

impl Tally {
    /// Slots that are over are empty.
    fn turn(&mut self, slot: u64) {
        let passed = slot.saturating_sub(self.newest).min(SLOTS as u64);
        for back in 0..passed {
            self.slots[((slot - back) % SLOTS as u64) as usize] = Counts::default();
        }
        self.newest = self.newest.max(slot);
    }

    fn add(&mut self, slot: u64, counts: Counts) {
        self.turn(slot);
        self.slots[(slot % SLOTS as u64) as usize].add(counts);
    }

    fn sum(&self, slot: u64) -> Counts {
        let first = (slot + 1).saturating_sub(SLOTS as u64);
        let mut sum = Counts::default();
        for number in first.max((self.newest + 1).saturating_sub(SLOTS as u64))..=self.newest {
            if number <= slot {
                sum.add(self.slots[(number % SLOTS as u64) as usize]);
            }
        }
        sum
    }
}

#[derive(Debug, Default)]
enum Phase {
    #[default]
    Closed,
    Open {
        until: Instant,
    },
    HalfOpen {
        since: Instant,
        heard: HashMap<Reporter, Counts>,
    },
}

/// What is known of one instance.
#[derive(Debug, Default)]
struct State {
    phase: Phase,
    tallies: HashMap<Reporter, Tally>,
}

impl State {
    fn circuit(&self) -> Option<Circuit> {
        match self.phase {
            Phase::Closed => None,
            Phase::Open { .. } => Some(Circuit::Open),
            Phase::HalfOpen { .. } => Some(Circuit::HalfOpen),
        }
    }

    fn heard(&self) -> Option<&HashMap<Reporter, Counts>> {
        match &self.phase {
            Phase::HalfOpen { heard, .. } => Some(heard),
            Phase::Closed | Phase::Open { .. } => None,
        }
    }

    /// How many reporters are remembered.
    fn remembered(&self) -> usize {
        self.tallies.len() + self.heard().map_or(0, HashMap::len)
    }

    fn knows(&self, reporter: &Reporter) -> bool {
        self.tallies.contains_key(reporter) || self.heard().is_some_and(|heard| heard.contains_key(reporter))
    }
}

/// What is known of one service.
#[derive(Debug)]
struct Of {
    begun: Instant,
    slot: Duration,
    members: HashMap<Member, State>,
    /// When each reported on any instance of it last.
    reporters: HashMap<Reporter, Instant>,
    reported: Instant,
    swept: Instant,
}

impl Of {
    fn new(rule: &Rule, now: Instant) -> Self {
        let slot = (rule.window / SLOTS as u32).max(Duration::from_millis(1));
        let (members, reporters) = Default::default();
        Self { begun: now, slot, members, reporters, reported: now, swept: now }
    }

    fn slot(&self, now: Instant) -> u64 {
        let passed = now.saturating_duration_since(self.begun).as_nanos() / self.slot.as_nanos();
        u64::try_from(passed).unwrap_or(u64::MAX) + SLOTS as u64
    }

    /// When time alone turns a circuit: out for long enough, or on trial while nobody reports on the service any more. Nobody
    /// reports on who is out, so that the silence begins with the trial at the earliest.
    fn turns(&self, rule: &Rule, state: &State) -> Option<Instant> {
        match state.phase {
            Phase::Open { until } => Some(until),
            Phase::HalfOpen { since, .. } => Some(self.reported.max(since) + rule.silence()),
            Phase::Closed => None,
        }
    }

    /// Forgets who and what has not been reported on for a window; how many tallies went.
    fn sweep(&mut self, rule: &Rule, now: Instant) -> usize {
        let slot = self.slot(now);
        self.swept = now;
        self.reporters.retain(|_, last| now.saturating_duration_since(*last) < rule.window);
        let mut gone = 0;
        self.members.retain(|_, state| {
            let before = state.tallies.len();
            state.tallies.retain(|_, tally| tally.sum(slot).all() > 0);
            gone += before - state.tallies.len();
            !state.tallies.is_empty() || state.circuit().is_some()
        });
        gone
    }
}

/// What a report asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing.
    Stay,
    /// The instance ought to be out.
    Open,
    Close,
}

/// All circuits.
#[derive(Debug, Default)]
pub(super) struct Breakers {
    services: HashMap<ServiceName, Of>,
    /// Pairs of an instance and who reports on it.
    remembered: usize,
}

impl Breakers {
    pub(super) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    pub(super) fn has(&self, service: &ServiceName) -> bool {
        self.services.contains_key(service)
    }

    /// How much is remembered: pairs of an instance and who reports on it.
    pub(super) fn remembered(&self) -> usize {
        self.remembered
    }

    /// Whether a report would be the first of this reporter on this instance.
    pub(super) fn is_new(&self, service: &ServiceName, member: &Member, reporter: &Reporter) -> bool {
        let state = self.services.get(service).and_then(|of| of.members.get(member));
        state.is_none_or(|state| !state.knows(reporter))
    }

    /// Takes a report.
    pub(super) fn report(
        &mut self,
        rule: &Rule,
        (service, member): (&ServiceName, &Member),
        reporter: Reporter,
        counts: Counts,
        now: Instant,
    ) -> Verdict {
        let of = self.services.entry(service.clone()).or_insert_with(|| Of::new(rule, now));
        if of.slot != Of::new(rule, now).slot {
            // The window is another one since a reload: what was counted is not comparable.
            self.remembered -= of.members.values().map(|state| state.tallies.len()).sum::<usize>();
            of.members.values_mut().for_each(|state| state.tallies.clear());
            (of.begun, of.slot) = (now, Of::new(rule, now).slot);
        }
        if now.saturating_duration_since(of.swept) >= rule.window {
            self.remembered -= of.sweep(rule, now);
        }
        let slot = of.slot(now);
        let state = of.members.entry(member.clone()).or_default();
        let new = usize::from(!state.knows(&reporter));
        match &mut state.phase {
            // These requests began before it was out.
            Phase::Open { .. } => return Verdict::Stay,
            Phase::HalfOpen { heard, .. } => heard.entry(reporter).or_default().add(counts),
            Phase::Closed => {
                state.tallies.entry(reporter).or_default().add(slot, counts);
            }
        }
        self.remembered += new;
        of.reported = now;
        of.reporters.insert(reporter, now);
        let reporters = of.reporters.values().filter(|last| now.duration_since(**last) < rule.window).count();
        verdict(rule, state, slot, reporters)
    }

    /// The instance is out from now on.
    pub(super) fn open(&mut self, rule: &Rule, service: &ServiceName, member: &Member, now: Instant) {
        self.turn(service, member, Phase::Open { until: now + rule.out });
    }

    pub(super) fn close(&mut self, service: &ServiceName, member: &Member) {
        self.turn(service, member, Phase::Closed);
    }

    fn turn(&mut self, service: &ServiceName, member: &Member, phase: Phase) {
        let state = self.services.get_mut(service).and_then(|of| of.members.get_mut(member));
        if let Some(state) = state {
            // What was counted before has had its say.
            self.remembered -= state.remembered();
            *state = State { phase, tallies: HashMap::new() };
        }
    }

    /// There is no room for another one that is out: what was heard while it was half open is not counted again.
    pub(super) fn refuse(&mut self, service: &ServiceName, member: &Member) {
        let state = self.services.get_mut(service).and_then(|of| of.members.get_mut(member));
        if let Some(Phase::HalfOpen { heard, .. }) = state.map(|state| &mut state.phase) {
            self.remembered -= heard.len();
            heard.clear();
        }
    }

    /// The instance is not there any more.
    pub(super) fn gone(&mut self, service: &ServiceName, member: &Member) {
        let Some(of) = self.services.get_mut(service) else { return };
        self.remembered -= of.members.remove(member).map_or(0, |state| state.remembered());
        if of.members.is_empty() {
            self.services.remove(service);
        }
    }

    /// Who of a service is out, the one that was first before the others.
    pub(super) fn out(&self, service: &ServiceName) -> Vec<Member> {
        let until = |(member, state): (&Member, &State)| match state.phase {
            Phase::Open { until } => Some((until, member.clone())),
            Phase::Closed | Phase::HalfOpen { .. } => None,
        };
        let mut out: Vec<_> = self
            .services
            .get(service)
            .into_iter()
            .flat_map(|of| of.members.iter().filter_map(until))
            .collect();
        out.sort();
        out.into_iter().map(|(_, member)| member).collect()
    }

    /// An instance is out no longer, but on trial.
    pub(super) fn release(&mut self, service: &ServiceName, member: &Member, now: Instant) {
        self.turn(service, member, Phase::HalfOpen { since: now, heard: HashMap::new() });
    }

    /// What time has done to the circuits of a service: those that were out for long enough are half open, those that nobody
    /// reports on any more are closed. Names them, and what they were.
    pub(super) fn pass(
        &mut self,
        rule: &Rule,
        service: &ServiceName,
        now: Instant,
    ) -> Vec<(Member, Circuit)> {
        let Some(of) = self.services.get(service) else { return Vec::new() };
        let due = |state: &State| of.turns(rule, state).is_some_and(|at| at <= now);
        let due = of.members.iter().filter(|(_, state)| due(state));
        let due: Vec<(Member, Circuit)> =
            due.filter_map(|(member, state)| Some((member.clone(), state.circuit()?))).collect();
        for (member, circuit) in &due {
            match circuit {
                Circuit::Open => self.release(service, member, now),
                Circuit::HalfOpen => self.close(service, member),
            }
        }
        due
    }

    /// What readers see of a service's circuits, and when time may change it.
    pub(super) fn shown(&self, rule: &Rule, service: &ServiceName) -> Option<(Broken, Instant)> {
        let of = self.services.get(service)?;
        let all = of.members.iter().filter_map(|(member, state)| Some((member.clone(), state.circuit()?)));
        let broken = Broken(all.collect());
        let next = of.members.values().filter_map(|state| of.turns(rule, state));
        next.min().map(|next| (broken, next))
    }

    pub(super) fn circuit(&self, service: &ServiceName, member: &Member) -> Option<Circuit> {
        self.services.get(service)?.members.get(member)?.circuit()
    }

    /// Forgets all that was not reported on for a window.
    pub(super) fn sweep(&mut self, settings: &Settings, now: Instant) {
        let mut gone = 0;
        self.services.retain(|service, of| {
            gone += of.sweep(&settings.rule(service.folded()), now);
            !of.members.is_empty()
        });
        self.remembered -= gone;
    }

    /// How many circuits are open, and half open.
    pub(super) fn counts(&self) -> (usize, usize) {
        let circuits = self.services.values().flat_map(|of| of.members.values()).filter_map(State::circuit);
        circuits.fold((0, 0), |(open, half), circuit| match circuit {
            Circuit::Open => (open + 1, half),
            Circuit::HalfOpen => (open, half + 1),
        })
    }
}

/// What is to become of a circuit; `reporters` report on the service.
fn verdict(rule: &Rule, state: &State, slot: u64, reporters: usize) -> Verdict {
    if rule.requests == 0 {
        return Verdict::Stay;
    }
    let (said, enough): (Vec<Counts>, u64) = match &state.phase {
        Phase::Open { .. } => return Verdict::Stay,
        Phase::Closed => (state.tallies.values().map(|tally| tally.sum(slot)).collect(), rule.requests),
        Phase::HalfOpen { heard, .. } => (heard.values().copied().collect(), rule.trial),
    };
    let mut all = Counts::default();
    said.iter().for_each(|counts| all.add(*counts));
    if all.all() < enough {
        return Verdict::Stay;
    }
    if !rule.fails(all) {
        return if matches!(state.phase, Phase::HalfOpen { .. }) { Verdict::Close } else { Verdict::Stay };
    }
    let agree = said.iter().filter(|counts| rule.fails(**counts)).count();
    if reporters <= 1 || agree >= 2 { Verdict::Open } else { Verdict::Stay }
}

#[cfg(test)]
mod tests;
