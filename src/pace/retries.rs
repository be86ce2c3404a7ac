//! When something that failed is tried again: after pauses that double, of which half is chance, so that those who failed together do
//! not come back together.

use std::time::Duration;

/// How often and how soon.
#[derive(Debug, Clone, Copy)]
pub struct Retries {
    /// Tries in all, the first one included.
    pub tries: u32,
    /// The first pause, and the longest.
    pub pause: Duration,
    pub pause_max: Duration,
}

impl Retries {
    /// How long to wait after a try that failed, counted from 1; `None` when it was the last. `chance` is between 0 and 1.
    pub fn pause(&self, tried: u32, chance: f64) -> Option<Duration> {
        if tried >= self.tries {
            return None;
        }
        let doubled = 2u32.saturating_pow(tried.saturating_sub(1));
        let whole = self.pause.saturating_mul(doubled).min(self.pause_max);
        Some(whole / 2 + (whole / 2).mul_f64(chance.clamp(0.0, 1.0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_to_a_bound_and_half_of_each_is_chance() {
        let ms = Duration::from_millis;
        let retries = Retries { tries: 5, pause: ms(100), pause_max: ms(300) };
        let pauses = |chance| (1..=6).map(|tried| retries.pause(tried, chance)).collect::<Vec<_>>();
        assert_eq!(pauses(0.0), [Some(ms(50)), Some(ms(100)), Some(ms(150)), Some(ms(150)), None, None]);
        assert_eq!(pauses(1.0), [Some(ms(100)), Some(ms(200)), Some(ms(300)), Some(ms(300)), None, None]);
        let many = Retries { tries: u32::MAX, ..retries };
        assert_eq!(many.pause(u32::MAX - 1, 7.0), Some(ms(300)));
    }
}
