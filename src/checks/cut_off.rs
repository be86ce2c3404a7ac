//! What the runner does when it may be the one that is cut off ([`horizon`](super::horizon)).

use std::collections::HashSet;
use std::net::IpAddr;

use tokio::time::Instant;

use super::horizon::Turn;
use super::kinds::{self, Probed};
use super::runner::Runner;
use crate::model::{CheckKind, Status};

/// Hosts that are asked at once whether they are there.
const ASKED_MAX: usize = 64;

impl Runner {
    /// The host of a new check enters, unless it is this machine.
    pub(super) fn join_host(&mut self, kind: &CheckKind, now: Instant) -> Option<std::sync::Arc<str>> {
        let host = kinds::host(kind).filter(|_| self.horizon.is_on())?;
        let own = match host.parse::<IpAddr>() {
            Ok(ip) => self.outlook.is_own(ip, now),
            Err(_) => host.trim_end_matches('.').eq_ignore_ascii_case("localhost"),
        };
        (!own).then(|| self.horizon.join(&host))
    }

    /// Takes in what a probe says of the network. Returns whether what it found counts.
    pub(super) fn counts(&mut self, number: u64, probed: &Probed, now: Instant) -> bool {
        let Some(job) = self.jobs.get(&number) else { return true };
        let Some(host) = job.host.clone() else { return true };
        let lost = probed.is_lost();
        // Silence passes a UDP check, and says nothing.
        if !lost
            && matches!(job.check.kind, CheckKind::Udp { .. })
            && probed.finding.status == Status::Passing
        {
            return true;
        }
        if lost || self.held {
            let stranded = self.outlook.is_stranded(now);
            self.horizon.set_stranded(stranded, now);
        }
        let heard = if lost {
            let began = now.checked_sub(probed.took).unwrap_or(now);
            self.horizon.lost(&host, began, now)
        } else {
            self.horizon.reached(&host, now)
        };
        match heard.turn {
            Some(Turn::Ask) => self.ask_others(now),
            Some(Turn::CutOff { since }) => self.take_back(since, now),
            Some(Turn::Over | Turn::Back) | None => {}
        }
        // Somebody is reached without the way that is gone: so it is to be.
        if !lost && self.horizon.is_stranded_too_long(now) {
            self.outlook.accept();
            self.horizon.set_stranded(false, now);
        }
        self.tell(now);
        if !heard.counts {
            self.metrics.steady.held.inc();
        }
        heard.counts
    }

    /// Says that it began or ended, to people and to those who wait for others' word.
    fn tell(&mut self, now: Instant) {
        let until = self.horizon.held_until(now);
        if until.is_some() == self.held {
            return;
        }
        self.held = until.is_some();
        self.registry.hold_expiry(until);
        self.metrics.steady.cut_off.set(i64::from(until.is_some()));
        match until {
            Some(until) => tracing::warn!(
                hosts = self.horizon.lost_hosts(),
                "this machine seems to be cut off: statuses are held for at most {:?}",
                until.duration_since(now)
            ),
            None => tracing::warn!("health checks count again"),
        }
    }

    /// One check of each host that may be alive is due.
    fn ask_others(&mut self, now: Instant) {
        let mut asked = HashSet::new();
        for (number, job) in &self.jobs {
            let Some(host) = job.host.as_ref().filter(|host| self.horizon.is_open(host)) else { continue };
            if asked.len() < ASKED_MAX && !job.is_running() && asked.insert(host.clone()) {
                self.queue.hasten(*number, now);
            }
        }
    }

    /// What fell since then for want of a way fell through no fault of its own.
    fn take_back(&mut self, since: Instant, now: Instant) {
        for job in self.jobs.values_mut() {
            let was_unsettled = job.is_unsettled();
            self.news.extend(job.take_back(since, now));
            self.metrics.steady.settled(was_unsettled, job.is_unsettled());
        }
    }

    /// Nobody is left to be cut off from, perhaps.
    pub(super) fn leave_host(&mut self, host: &str) {
        self.horizon.leave(host);
        self.tell(Instant::now());
    }
}
