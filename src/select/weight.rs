//! The arithmetic of weights: shares become the weights of an answer, in whole numbers that records can carry.
//!
//! SRV records have 16 bits for a weight, and some clients keep the upper eight of them alone (HAProxy), so that what is spread is spread
//! over all of them. Pure.

use super::Chosen;
use crate::registry::ramps::Eased;

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

/// Gives instances that start slowly their part of their weights. Where all have the same part nothing changes.
pub(super) fn ease(chosen: &mut [Chosen<'_>], eased: &Eased) {
    let percent = |chosen: &Chosen<'_>| {
        let instance = &chosen.entry.instance;
        eased.percent(&instance.node, &instance.id).unwrap_or(100)
    };
    let percents: Vec<u8> = chosen.iter().map(percent).collect();
    if percents.iter().all(|percent| Some(percent) == percents.first()) {
        return;
    }
    let shares = chosen.iter().zip(&percents);
    let shares: Vec<u128> =
        shares.map(|(chosen, percent)| u128::from(chosen.weight) * u128::from(*percent)).collect();
    for (chosen, weight) in chosen.iter_mut().zip(spread(&shares)) {
        chosen.weight = weight;
    }
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
