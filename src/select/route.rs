//! What a route makes of the instances that are healthy.
//!
//! SRV records carry weights: those of a subset come to its share, however many instances it has. Addresses cannot, so each answer
//! of addresses holds one subset, drawn by the shares: a client that takes any address of its answer meets the subsets in these
//! shares, too. A share of which nobody is healthy goes to the others; when that leaves nobody, all who are healthy answer, unless the
//! route is strict: a route that points at nobody is a mistake more often than a wish for an outage.

use super::order::{Order, chance, mix};
use super::weight::spread;
use super::why::{Why, judge};
use super::{Chosen, Family, Known, World};
use crate::model::{Instance, Route};
use crate::registry::RouteEntry;

/// Whom a name is about.
#[derive(Clone, Copy)]
pub(super) enum About<'a> {
    All,
    Tag(&'a str),
    /// A subset that the service's route has named.
    Subset(&'a Route, usize),
}

impl<'a> About<'a> {
    pub(super) fn of(world: World<'a>, service: &str, tag: Option<&'a str>) -> Self {
        let Some(tag) = tag else { return Self::All };
        let route = world.snapshot.route_of(service).map(|entry| &*entry.route);
        match route.and_then(|route| Some((route, route.named(tag)?))) {
            Some((route, at)) => Self::Subset(route, at),
            None => Self::Tag(tag),
        }
    }

    pub(super) fn has(self, instance: &Instance) -> bool {
        match self {
            Self::All => true,
            Self::Tag(tag) => instance.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)),
            Self::Subset(route, at) => route.subset_of(instance) == Some(at),
        }
    }
}

/// How a route steered an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Steered {
    /// No route.
    #[default]
    Free,
    /// By its shares.
    ByShares,
    /// It points at nobody who is healthy: all others answer.
    Fallback,
    /// The same, and nobody answers.
    Strictly,
}

impl<'a> Known<'a> {
    /// Leaves those to whom the route gives a share, with weights that come to the shares.
    pub(super) fn steer(&mut self, entry: &RouteEntry) {
        let share = |at: u8| entry.shares.get(usize::from(at)).copied().unwrap_or(0);
        for chosen in &mut self.chosen {
            let at = entry.route.subset_of(&chosen.entry.instance).and_then(|at| u8::try_from(at).ok());
            chosen.subset = at.filter(|at| share(*at) > 0);
        }
        if self.chosen.iter().all(|chosen| chosen.subset.is_none()) {
            self.steered = if entry.route.strict { Steered::Strictly } else { Steered::Fallback };
            if entry.route.strict {
                self.aside = std::mem::take(&mut self.chosen);
                self.stale = false;
            }
            return;
        }
        self.steered = Steered::ByShares;
        let all = std::mem::take(&mut self.chosen);
        (self.chosen, self.aside) = all.into_iter().partition(|chosen| chosen.subset.is_some());
        self.stale = self.chosen.iter().any(|chosen| chosen.stale);
        for at in 0..entry.shares.len() {
            let at = u8::try_from(at).unwrap_or(u8::MAX);
            if self.chosen.iter().any(|chosen| chosen.subset == Some(at)) {
                self.shares.push((at, share(at)));
            }
        }
        weigh(&mut self.chosen, &self.shares);
    }

    /// Whether the answer has anybody of this subset of the route that steers it.
    pub fn gives(&self, subset: usize) -> bool {
        self.shares.iter().any(|(at, _)| usize::from(*at) == subset)
    }

    /// The subsets of which answers of addresses are drawn: the share of each, and what there is of it. Nothing where there is
    /// nothing to draw. Subsets without an address of the family are left out.
    pub fn draws(&self, family: Family) -> Vec<(u64, Self)> {
        if self.shares.len() < 2 {
            return Vec::new();
        }
        let fits = |chosen: &Chosen<'_>| match family {
            _ if chosen.reached.host.is_some() => true,
            Family::V4 => chosen.reached.v4.is_some(),
            Family::V6 => chosen.reached.v6.is_some(),
            Family::Any => true,
        };
        let one = |(at, share): &(u8, u32)| {
            let chosen: Vec<_> =
                self.chosen.iter().filter(|chosen| chosen.subset == Some(*at)).copied().collect();
            let part = Known { steered: self.steered, ..Known::new(self.service, chosen, self.ttl) };
            part.chosen.iter().any(fits).then_some((u64::from(*share), part))
        };
        self.shares.iter().filter_map(one).collect()
    }

    /// Leaves the subset that chance draws for this answer, and gives the chance that is left for the order within.
    pub fn draw(&mut self, order: Order, family: Family) -> Order {
        let draws = self.draws(family);
        let total: u64 = draws.iter().map(|(share, _)| share).sum();
        let number = match order {
            Order::Draw(pick) => pick,
            Order::For(client) => mix(chance(client)),
        };
        let Some(mut at) = number.checked_rem(total) else { return order };
        for (share, part) in draws {
            if at < share {
                self.chosen = part.chosen;
                break;
            }
            at -= share;
        }
        match order {
            Order::Draw(pick) => Order::Draw(pick / total),
            order @ Order::For(_) => order,
        }
    }
}

/// What the plain name of a service gives each subset of its route at present, as weights among each other.
pub fn given(world: World<'_>, entry: &RouteEntry) -> (Steered, Vec<u32>) {
    let RouteEntry { route, shares, .. } = entry;
    let mut given = vec![0; shares.len()];
    let instances = || {
        world.snapshot.service(route.service.folded()).into_iter().flat_map(|service| {
            service.instances.values().map(|entry| (entry, judge(world, service, entry, About::All)))
        })
    };
    // As in answers: circuits by themselves leave nobody out when nobody else is left.
    let anybody = instances().any(|(_, judged)| judged.is_ok());
    for (entry, judged) in instances() {
        let answers = judged.is_ok() || (!anybody && judged.is_err_and(|why| why == Why::Broken));
        let subset = route.subset_of(&entry.instance).filter(|_| answers);
        if let Some((given, share)) = subset.and_then(|at| Some((given.get_mut(at)?, shares.get(at)?))) {
            *given = *share;
        }
    }
    let steered = match given.iter().any(|share| *share > 0) {
        _ if !route.is_active() => Steered::Free,
        true => Steered::ByShares,
        false if route.strict => Steered::Strictly,
        false => Steered::Fallback,
    };
    (steered, given)
}

/// Gives the instances of each subset weights in the proportion of their own, whose sums are in the proportion of the shares: the
/// largest whole numbers that are, or where none fit, the nearest. Large, since some clients drop the low bits (HAProxy
/// divides by 256).
fn weigh(chosen: &mut [Chosen<'_>], shares: &[(u8, u32)]) {
    let sum = |at: u8| {
        let own = chosen.iter().filter(|chosen| chosen.subset == Some(at));
        own.fold((0u128, 0u128), |(sum, count), chosen| (sum + u128::from(chosen.weight), count + 1))
    };
    let sums: Vec<(u8, u128, u128, bool)> = shares
        .iter()
        .map(|(at, share)| {
            let (sum, count) = sum(*at);
            // Those that all weigh nothing weigh the same.
            (*at, u128::from(*share), if sum == 0 { count } else { sum }, sum == 0)
        })
        .collect();
    let multiple = sums.iter().fold(1u128, |all, (_, _, sum, _)| {
        let next = all / gcd(all, *sum).max(1) * sum;
        // Beyond that nothing is exact any more.
        if next > 1 << 64 { 1 << 64 } else { next }
    });
    let exact = |chosen: &Chosen<'_>| {
        let own = sums.iter().find(|(at, ..)| chosen.subset == Some(*at));
        own.map_or(0, |(_, share, sum, even)| {
            let weight = if *even { 1 } else { u128::from(chosen.weight) };
            share * weight * multiple / (*sum).max(1)
        })
    };
    let weights: Vec<u128> = chosen.iter().map(exact).collect();
    let divisor = weights.iter().fold(0, |all, weight| gcd(all, *weight)).max(1);
    let most = weights.iter().max().copied().unwrap_or(0).max(1);
    let room = u128::from(u16::MAX);
    let exact =
        |weight: &u128| u16::try_from(weight / divisor * (room / (most / divisor))).unwrap_or(u16::MAX);
    let fitted = if most / divisor <= room { weights.iter().map(exact).collect() } else { spread(&weights) };
    for (chosen, weight) in chosen.iter_mut().zip(fitted) {
        chosen.weight = weight;
    }
}

fn gcd(mut one: u128, mut other: u128) -> u128 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}
