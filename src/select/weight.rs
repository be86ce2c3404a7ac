//! The arithmetic of weights: shares become the weights of an answer, in whole numbers that records can carry.
//!
//! SRV records have 16 bits for a weight, and some clients keep the upper eight of them alone (HAProxy), so that what is spread is spread
//! over all of them. Pure.

use super::Chosen;
use crate::registry::ServiceEntry;
use crate::registry::breaker::Circuit;

/// The nearest whole numbers in the proportion of these, of which the greatest is 65535. What is above nothing stays so.
pub(super) fn spread(shares: &[u128]) -> Vec<u16> {
    let most = shares.iter().max().copied().unwrap_or(0).max(1);
    let room = u128::from(u16::MAX);
    let fitted = |share: &u128| match share {
        0 => 0,
        share => u16::try_from((share * room + most / 2) / most).unwrap_or(u16::MAX).max(1),
    };
    shares.iter().map(fitted).collect()
}

/// What a half-open circuit leaves: one part of so many of the lowest weight that another instance of the answer has.
const TRIAL: u128 = 100;

/// Gives instances that start slowly their part of their weights, and those whose circuit is half open the lowest of all. Where that is
/// the same for all, nothing changes.
pub(super) fn temper(chosen: &mut [Chosen<'_>], service: &ServiceEntry) {
    if service.eased.is_none() && service.broken.is_none() {
        return;
    }
    let part = |chosen: &Chosen<'_>| {
        let (node, id) = (&chosen.entry.instance.node, &chosen.entry.instance.id);
        let percent = service.eased.as_ref().and_then(|eased| eased.percent(node, id)).unwrap_or(100);
        (percent, is_on_trial(service, chosen))
    };
    let parts: Vec<(u8, bool)> = chosen.iter().map(part).collect();
    if parts.iter().all(|part| Some(part) == parts.first()) {
        return;
    }
    let of = |(chosen, (percent, _)): (&Chosen<'_>, &(u8, bool))| {
        u128::from(chosen.weight) * u128::from(*percent) * TRIAL
    };
    let mut shares: Vec<u128> = chosen.iter().zip(&parts).map(of).collect();
    let others = shares.iter().zip(&parts).filter(|(share, (_, trial))| !trial && **share > 0);
    if let Some(lowest) = others.map(|(share, _)| *share).min() {
        let trials = shares.iter_mut().zip(&parts).filter(|(share, (_, trial))| *trial && **share > 0);
        trials.for_each(|(share, _)| *share = lowest / TRIAL);
    }
    for (chosen, weight) in chosen.iter_mut().zip(spread(&shares)) {
        chosen.weight = weight;
    }
}

fn is_on_trial(service: &ServiceEntry, chosen: &Chosen<'_>) -> bool {
    let instance = &chosen.entry.instance;
    let circuit = service.broken.as_ref().and_then(|broken| broken.circuit(&instance.node, &instance.id));
    circuit == Some(Circuit::HalfOpen)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn shares_are_spread_over_all_bits() {
        assert_eq!(spread(&[100, 100, 10]), [65535, 65535, 6554]);
        assert_eq!(spread(&[0, 1 << 90, 1]), [0, 65535, 1]);
        assert_eq!(spread(&[0, 0]), [0, 0]);
        assert_eq!(spread(&[]), Vec::<u16>::new());
    }

    proptest! {
        /// Proportions hold to within one part of what is rounded, and nothing is lost.
        #[test]
        fn proportions_hold(shares in prop::collection::vec(0..6_553_500u128, 1..20)) {
            let spread = spread(&shares);
            let most = *shares.iter().max().unwrap();
            for (share, weight) in shares.iter().zip(&spread) {
                prop_assert_eq!(*share == 0, *weight == 0);
                let exact = *share as f64 * 65535.0 / most.max(1) as f64;
                prop_assert!((f64::from(*weight) - exact).abs() <= 1.0);
            }
        }
    }
}
