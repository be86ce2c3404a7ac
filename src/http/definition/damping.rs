//! A check's own words on the damping of flaps: `FlapMax`, `FlapLeak`, `FlapSteady`. They are Rollcall's; Consul knows none.

use std::time::Duration;

use super::super::decode::GoDuration;
use super::super::error::Error;
use super::CheckBody;
use crate::model::Damping;

impl CheckBody {
    /// What is said; none where nothing is. Errs for checks that are not probed.
    pub(super) fn damping(&self, probes: bool) -> Result<Option<Box<Damping>>, Error> {
        let invalid = |text: String| Error::bad(format!("Invalid check: {text}"));
        let time = |given: Option<GoDuration>, key: &str| match given {
            Some(GoDuration(Duration::ZERO)) => Err(invalid(format!("{key} must be above zero"))),
            given => Ok(given.map(|time| time.0)),
        };
        let max = self.flap_max.map(|max| {
            u32::try_from(max)
                .map_err(|_| invalid(format!("FlapMax {max} is not between 0 and {}", u32::MAX)))
        });
        let (leak, steady) = (time(self.flap_leak, "FlapLeak")?, time(self.flap_steady, "FlapSteady")?);
        let damping = Damping { max: max.transpose()?, leak, steady };
        let any = damping != Damping::default();
        if any && !probes {
            return Err(invalid(
                "FlapMax, FlapLeak and FlapSteady are for checks that are probed".to_owned(),
            ));
        }
        Ok(any.then(|| damping.into()))
    }
}
