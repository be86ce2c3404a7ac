//! Routes: with which instances the plain name of a service answers, and in what shares.
//!
//! One concept for blue-green, canary and rolling: subsets of a service's instances, by a tag or by meta, each with a share. How a
//! subset is written is told at [`Subset::parse`]; it is read here and nowhere else.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::name::is_label;
use super::{Instance, ServiceName};

/// Subsets of one route that can be asked for.
pub const SUBSETS_MAX: usize = 16;
/// The largest share.
pub const SHARE_MAX: u32 = 1_000_000;
/// Octets of a tag, or of a key and its value.
const SELECTOR_OCTETS_MAX: usize = 512;
/// Earlier versions that are kept.
pub const PAST_MAX: usize = 16;
/// The longest way, and the longest watch, in milliseconds.
pub const TIME_MAX: u64 = 31 * 86_400_000;
/// Versions, and moments in milliseconds, that any reader of JSON holds exactly.
const NUMBER_MAX: u64 = 1 << 53;

/// The route of one service, and those before it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    pub service: ServiceName,
    /// Counts from 1 with each change.
    pub version: u64,
    /// All instances answer where there are none.
    #[serde(default)]
    pub subsets: Vec<Subset>,
    /// Nobody answers when nobody of the subsets with a share is healthy; else all who are healthy do then.
    #[serde(default)]
    pub strict: bool,
    /// What was in force before, for each of the subsets; empty where that is not known.
    #[serde(default)]
    pub from: Vec<u32>,
    /// What all others had then, who are in none of the subsets.
    #[serde(default)]
    pub from_others: u32,
    /// How long the way from there takes, in milliseconds.
    #[serde(default)]
    pub over: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard: Option<Guard>,
    /// When it was set, in milliseconds since 1970.
    pub set: u64,
    /// What made this version: `set`, `undo of version 3`, and so on.
    pub why: String,
    /// The guard of the version before made it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub aborted: bool,
    /// The newest first.
    #[serde(default)]
    pub past: Vec<Past>,
}

/// An earlier version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    pub version: u64,
    #[serde(default)]
    pub subsets: Vec<Subset>,
    #[serde(default)]
    pub strict: bool,
    pub set: u64,
    pub why: String,
}

/// Puts the former route back by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Guard {
    /// When more than so many percent of the instances are unhealthy whose subsets gain by the route.
    pub unhealthy: u8,
    /// How long after the route has come to its shares, in milliseconds.
    pub watch: u64,
}

/// A part of a service's instances. An instance belongs to the first subset that it fits.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subset {
    /// A label in lower case: `<name>.<service>.service` answers with this subset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    pub by: By,
    /// A weight among those of the other subsets.
    pub share: u32,
}

/// Which instances.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum By {
    /// Letter case does not matter.
    Tag(String),
    Meta {
        key: String,
        value: String,
    },
}

/// What is wrong with a route as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("subset {text:?}: {what}")]
    Subset { text: String, what: &'static str },
    #[error("a route needs a subset, such as blue=95")]
    Empty,
    #[error("{0} subsets: at most {SUBSETS_MAX} are allowed in a route")]
    TooMany(usize),
    #[error("the shares are all 0: one subset at least must have more (`route clear` ends a route)")]
    NoShare,
    #[error("the shares are percents and come to {0} instead of 100")]
    Percents(u64),
    #[error("either all shares are percents, or none is")]
    Mixed,
    #[error("two subsets are {0}")]
    Twice(String),
    #[error("{0}")]
    Bounds(&'static str),
}

/// A subset, and whether its share was written as a percent.
struct Written(Subset, bool);

impl Subset {
    /// Reads a subset:
    ///
    /// ```text
    /// [NAME@]TAG=SHARE   [NAME@]tag.TAG=SHARE   [NAME@]meta.KEY=VALUE:SHARE   [NAME@]version=VALUE:SHARE
    /// ```
    ///
    /// `version` is the meta of that key. A share is a whole number up to [`SHARE_MAX`], perhaps with `%` behind it. One by a tag that
    /// can be a label has that for a name.
    pub fn parse(text: &str) -> Result<Self, RouteError> {
        Written::parse(text).map(|Written(subset, _)| subset)
    }

    fn default_name(by: &By) -> Option<String> {
        match by {
            By::Tag(tag) => is_name(tag).then(|| tag.to_ascii_lowercase()),
            By::Meta { .. } => None,
        }
    }
}

/// What makes of a text something else than a tag.
const FRONTS: [&str; 3] = ["meta.", "tag.", "version="];

/// Whether subsets can be called so: what begins with `_` is a protocol or a service in DNS.
fn is_name(text: &str) -> bool {
    is_label(text) && !text.starts_with('_')
}

impl Written {
    fn parse(text: &str) -> Result<Self, RouteError> {
        let wrong = |what| RouteError::Subset { text: text.chars().take(80).collect(), what };
        if text.chars().any(char::is_control) {
            return Err(wrong("it has a control character"));
        }
        if text.chars().any(|c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')) {
            return Err(wrong("it has a character that turns the direction of what is shown"));
        }
        let (name, rest) = match text.split_once('@') {
            Some((name, rest)) if is_name(name) => (Some(name.to_ascii_lowercase()), rest),
            Some(_) if !FRONTS.iter().any(|front| text.starts_with(front)) => {
                return Err(wrong("what stands before @ is no name: letters, digits and hyphens"));
            }
            _ => (None, text),
        };
        let meta = match rest.strip_prefix("meta.") {
            Some(rest) => Some(rest.split_once('=').ok_or_else(|| wrong("write meta.KEY=VALUE:SHARE"))?),
            None => {
                rest.strip_prefix("version=").filter(|rest| rest.contains(':')).map(|rest| ("version", rest))
            }
        };
        let (by, share) = match meta {
            Some((key, rest)) => {
                let (value, share) =
                    rest.rsplit_once(':').ok_or_else(|| wrong("write meta.KEY=VALUE:SHARE"))?;
                if key.is_empty() {
                    return Err(wrong("the meta key is empty"));
                }
                (By::Meta { key: key.to_owned(), value: value.to_owned() }, share)
            }
            None => {
                let (tag, share) = rest
                    .rsplit_once('=')
                    .ok_or_else(|| wrong("write TAG=SHARE, meta.KEY=VALUE:SHARE or version=VALUE:SHARE"))?;
                if tag.starts_with("version=") {
                    return Err(wrong("write version=VALUE:SHARE"));
                }
                let tag = tag.strip_prefix("tag.").unwrap_or(tag);
                if tag.is_empty() {
                    return Err(wrong("the tag is empty"));
                }
                (By::Tag(tag.to_owned()), share)
            }
        };
        if by.octets() > SELECTOR_OCTETS_MAX {
            return Err(wrong("it has more than 512 octets"));
        }
        let (digits, percent) = share.strip_suffix('%').map_or((share, false), |digits| (digits, true));
        let plain = !digits.is_empty() && digits.bytes().all(|octet| octet.is_ascii_digit());
        let share = digits.parse::<u32>().ok().filter(|share| plain && *share <= SHARE_MAX);
        let share = share.ok_or_else(|| wrong("the share must be a whole number from 0 to 1000000"))?;
        let name = name.or_else(|| Subset::default_name(&by));
        Ok(Self(Subset { name, by, share }, percent))
    }
}

/// Reads the subsets of a route, and the rules that hold for them together.
pub fn parse<'a>(texts: impl Iterator<Item = &'a str>) -> Result<Vec<Subset>, RouteError> {
    let written = texts.map(Written::parse).collect::<Result<Vec<_>, _>>()?;
    let percents = written.iter().filter(|Written(_, percent)| *percent).count();
    let all = written.len();
    let subsets: Vec<Subset> = written.into_iter().map(|Written(subset, _)| subset).collect();
    check(&subsets)?;
    let total: u64 = subsets.iter().map(|subset| u64::from(subset.share)).sum();
    match percents {
        0 => Ok(subsets),
        some if some < all => Err(RouteError::Mixed),
        _ if total != 100 => Err(RouteError::Percents(total)),
        _ => Ok(subsets),
    }
}

/// The rules for subsets that are asked for together.
pub fn check(subsets: &[Subset]) -> Result<(), RouteError> {
    if subsets.len() > SUBSETS_MAX {
        return Err(RouteError::TooMany(subsets.len()));
    }
    check_stored(subsets)
}

/// The rules for those of a route that is there: the ones before it may be among them without a share.
pub fn check_stored(subsets: &[Subset]) -> Result<(), RouteError> {
    if subsets.is_empty() {
        return Err(RouteError::Empty);
    }
    if subsets.len() > 2 * SUBSETS_MAX {
        return Err(RouteError::TooMany(subsets.len()));
    }
    for (at, subset) in subsets.iter().enumerate() {
        let mut before = subsets.iter().take(at);
        if let Some(other) = before
            .find(|other| other.by.is(&subset.by) || (other.name.is_some() && other.name == subset.name))
        {
            let same = if other.by.is(&subset.by) {
                other.by.to_string()
            } else {
                format!("named {:?}", subset.name.as_deref().unwrap_or_default())
            };
            return Err(RouteError::Twice(same));
        }
    }
    if subsets.iter().all(|subset| subset.share == 0) { Err(RouteError::NoShare) } else { Ok(()) }
}

impl By {
    /// Whether an instance is one of them.
    pub fn has(&self, instance: &Instance) -> bool {
        match self {
            Self::Tag(tag) => instance.tags.iter().any(|own| own.eq_ignore_ascii_case(tag)),
            Self::Meta { key, value } => instance.meta.get(key) == Some(value.as_str()),
        }
    }

    /// Whether both choose alike.
    pub fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tag(one), Self::Tag(other)) => one.eq_ignore_ascii_case(other),
            (one, other) => one == other,
        }
    }

    fn octets(&self) -> usize {
        match self {
            Self::Tag(tag) => tag.len(),
            Self::Meta { key, value } => key.len() + value.len(),
        }
    }
}

impl fmt::Display for By {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            // What would be read as something else says what it is.
            Self::Tag(tag) if FRONTS.iter().any(|front| tag.starts_with(front)) || tag.contains('@') => {
                write!(f, "tag.{tag}")
            }
            Self::Tag(tag) => f.write_str(tag),
            Self::Meta { key, value } => write!(f, "meta.{key}={value}"),
        }
    }
}

/// As [`Subset::parse`] reads it.
impl fmt::Display for Subset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, by, share } = self;
        if let Some(name) = name.as_ref().filter(|_| *name != Self::default_name(by)) {
            write!(f, "{name}@")?;
        }
        match by {
            By::Tag(_) => write!(f, "{by}={share}"),
            By::Meta { .. } => write!(f, "{by}:{share}"),
        }
    }
}

impl Route {
    /// The rules for one that another server has written.
    pub fn check(&self) -> Result<(), RouteError> {
        let bounds = |holds: bool, what| if holds { Ok(()) } else { Err(RouteError::Bounds(what)) };
        let own = self.subsets.iter().chain(self.past.iter().flat_map(|past| &past.subsets));
        let mut shares =
            own.map(|subset| subset.share).chain(self.from.iter().copied()).chain([self.from_others]);
        bounds(shares.all(|share| share <= SHARE_MAX), "a share is more than 1000000")?;
        let times = [self.over, self.guard.map_or(0, |guard| guard.watch)];
        bounds(times.iter().all(|time| *time <= TIME_MAX), "it takes, or watches for, more than 31 days")?;
        bounds((1..=NUMBER_MAX).contains(&self.version), "its version is not from 1 to 2^53")?;
        bounds(self.set <= NUMBER_MAX, "it was set after the year 200000")?;
        let from = [0, self.subsets.len()];
        bounds(from.contains(&self.from.len()), "it has not one former share for each subset")?;
        bounds(self.past.len() <= PAST_MAX, "it has more than 16 former versions")?;
        let guarded = self.guard.is_some();
        bounds(!guarded || !self.past.is_empty(), "it has a guard, and no former version to put back")?;
        let kept = self.past.iter().map(|past| &past.subsets).chain([&self.subsets]);
        kept.filter(|subsets| !subsets.is_empty()).try_for_each(|subsets| check_stored(subsets))
    }

    /// How long the way takes; no number that is stored makes it endless.
    fn way(&self) -> u64 {
        self.over.min(TIME_MAX)
    }

    /// Whether it leaves anybody out.
    pub fn is_active(&self) -> bool {
        !self.subsets.is_empty()
    }

    /// The subset that an instance belongs to.
    pub fn subset_of(&self, instance: &Instance) -> Option<usize> {
        self.subsets.iter().position(|subset| subset.by.has(instance))
    }

    /// The subset of this name (in lower case).
    pub fn named(&self, name: &str) -> Option<usize> {
        self.subsets.iter().position(|subset| subset.name.as_deref() == Some(name))
    }

    /// The shares at a moment in milliseconds since 1970: those that were set, or on the way there. Shares of one moment are weights
    /// among each other.
    pub fn shares_at(&self, now: u64) -> Vec<u32> {
        let to: Vec<u128> = self.subsets.iter().map(|subset| u128::from(subset.share)).collect();
        let gone = u128::from(now.saturating_sub(self.set));
        let over = u128::from(self.way());
        let total = |shares: &[u128]| shares.iter().sum::<u128>();
        let from: Vec<u128> = self.from.iter().map(|share| u128::from(*share)).collect();
        if gone >= over || from.len() != to.len() || total(&from) == 0 || total(&to) == 0 {
            return self.subsets.iter().map(|subset| subset.share).collect();
        }
        // Each end's own share of the whole, and the way between them.
        let (all, other) = (total(&to), total(&from));
        let part = |(from, to): (&u128, &u128)| {
            let parts = from * all * (over - gone) + to * other * gone;
            parts * u128::from(SHARE_MAX) / (all * other * over)
        };
        let parts = from.iter().zip(&to).map(part);
        parts.map(|part| u32::try_from(part).unwrap_or(SHARE_MAX)).collect()
    }

    /// Whether its shares still change.
    pub fn is_on_its_way(&self, now: u64) -> bool {
        now.saturating_sub(self.set) < self.way()
    }

    /// The guard, while it watches, and has something to put back.
    pub fn guard_at(&self, now: u64) -> Option<Guard> {
        let guard = self.guard.filter(|_| !self.past.is_empty())?;
        (now.saturating_sub(self.set) < self.way().saturating_add(guard.watch)).then_some(guard)
    }

    /// Whether a subset has more than before, or has a share and nobody knows what was before.
    pub fn gains(&self, subset: usize) -> bool {
        let total = |shares: &mut dyn Iterator<Item = u32>| shares.map(u128::from).sum::<u128>();
        let all = total(&mut self.subsets.iter().map(|subset| subset.share));
        let before = total(&mut self.from.iter().copied().chain([self.from_others]));
        let Some(to) = self.subsets.get(subset).map(|subset| u128::from(subset.share)) else { return false };
        let from = self.from.get(subset).map_or(0, |from| u128::from(*from));
        if before == 0 { to > 0 } else { to * before > from * all }
    }

    /// This version as one of the past.
    pub fn as_past(&self) -> Past {
        let Self { version, subsets, strict, set, why, .. } = self.clone();
        Past { version, subsets, strict, set, why }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(texts: &[&str]) -> Result<Vec<Subset>, RouteError> {
        parse(texts.iter().copied())
    }

    fn route(shares: &[u32], from: &[u32], over: u64) -> Route {
        let subset =
            |(at, share): (usize, &u32)| Subset { name: None, by: By::Tag(format!("t{at}")), share: *share };
        Route {
            service: ServiceName::parse("web").unwrap(),
            version: 1,
            subsets: shares.iter().enumerate().map(subset).collect(),
            strict: false,
            from: from.to_vec(),
            from_others: 0,
            over,
            guard: None,
            set: 1_000,
            why: "set".into(),
            aborted: false,
            past: Vec::new(),
        }
    }

    #[test]
    fn numbers_of_others_are_bounded_and_none_that_is_stored_divides_by_zero() {
        assert_eq!(route(&[1, 2], &[], 0).check(), Ok(()));
        let wild = Route { set: 0, ..route(&[1 << 31; 4], &[1 << 31; 4], 1 << 62) };
        assert_eq!(wild.shares_at(1 << 50), [1 << 31; 4]);
        assert_eq!(wild.shares_at(1_000), [SHARE_MAX / 4; 4]);
        let past = vec![route(&[1], &[], 0).as_past()];
        let guard = Some(Guard { unhealthy: 1, watch: 1 });
        assert_eq!(Route { guard, past, ..route(&[1], &[], 0) }.check(), Ok(()));
        for (what, wrong) in [
            ("share", wild),
            ("share", route(&[1], &[SHARE_MAX + 1], 0)),
            ("share", Route { from_others: SHARE_MAX + 1, ..route(&[1], &[], 0) }),
            ("31 days", route(&[1], &[], TIME_MAX + 1)),
            (
                "31 days",
                Route { guard: Some(Guard { unhealthy: 1, watch: u64::MAX }), ..route(&[1], &[], 0) },
            ),
            ("version", Route { version: u64::MAX, ..route(&[1], &[], 0) }),
            ("version", Route { version: 0, ..route(&[1], &[], 0) }),
            ("year", Route { set: u64::MAX, ..route(&[1], &[], 0) }),
            ("former share", route(&[1], &[1, 2], 0)),
            ("no former version", Route { guard, ..route(&[1], &[], 0) }),
            ("all 0", route(&[0], &[], 0)),
        ] {
            let error = wrong.check().unwrap_err().to_string();
            assert!(error.contains(what), "{what}: {error}");
        }
    }

    #[test]
    fn each_form_is_read() {
        for (text, name, by, share) in [
            ("Blue=95", Some("blue"), By::Tag("Blue".into()), 95),
            ("tag.meta.x=0", None, By::Tag("meta.x".into()), 0),
            ("a=b=3%", None, By::Tag("a=b".into()), 3),
            ("version=30", Some("version"), By::Tag("version".into()), 30),
            ("version=2:30", None, By::Meta { key: "version".into(), value: "2".into() }, 30),
            ("new@meta.v=2:1:30", Some("new"), By::Meta { key: "v".into(), value: "2:1".into() }, 30),
        ] {
            let wanted = Subset { name: name.map(str::to_owned), by, share };
            assert_eq!(Subset::parse(text), Ok(wanted), "{text}");
        }
        assert_eq!(read(&["blue=95%", "green=5%"]).unwrap().len(), 2);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (texts, reason) in [
            (&[][..], "a route needs a subset"),
            (&["blue"], "write TAG=SHARE"),
            (&["=1"], "the tag is empty"),
            (&["blue=-1"], "whole number"),
            (&["blue=1000001"], "whole number"),
            (&["blue=+1"], "whole number"),
            (&["blue="], "whole number"),
            (&["blue=1e3"], "whole number"),
            (&["meta.x=1"], "write meta.KEY"),
            (&["meta.=1:2"], "key is empty"),
            (&["bl\tue=1"], "control character"),
            (&["bl\u{202e}ue=1"], "direction"),
            (&["meta.a=\u{2067}b:1"], "direction"),
            (&["blue=0", "green=0"], "shares are all 0"),
            (&["blue=90%", "green=5%"], "come to 95"),
            (&["blue=95%", "green=5"], "either all"),
            (&["blue=1", "BLUE=2"], "two subsets are blue"),
            (&["a@x=1", "a@y=2"], "two subsets are named"),
            (&["a b@x=1"], "before @ is no name"),
            (&["x.y@x=1"], "before @ is no name"),
            (&["_tcp@x=1"], "before @ is no name"),
            (&["version=1.0=50"], "write version=VALUE:SHARE"),
        ] {
            let error = read(texts).unwrap_err().to_string();
            assert!(error.contains(reason), "{texts:?}: {error}");
        }
        let many: Vec<String> = (0..17).map(|at| format!("t{at}=1")).collect();
        assert_eq!(parse(many.iter().map(String::as_str)), Err(RouteError::TooMany(17)));
    }

    #[test]
    fn a_ramp_goes_from_the_old_shares_to_the_new_ones() {
        let way = route(&[0, 100], &[3, 1], 1_000);
        assert_eq!(way.shares_at(0), [750_000, 250_000]);
        assert_eq!(way.shares_at(1_500), [375_000, 625_000]);
        assert_eq!(way.shares_at(2_000), [0, 100]);
        assert!(way.is_on_its_way(1_999) && !way.is_on_its_way(2_000));
        assert_eq!((way.gains(0), way.gains(1)), (false, true));
        assert_eq!(route(&[5, 5], &[], 1_000).shares_at(0), [5, 5]);
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_what_is_read_is_written_alike(text in ".{0,40}", share in 0..=SHARE_MAX, front in "(|x@|meta.|tag.|version=|x@meta.k=)") {
            let _ = Subset::parse(&text);
            for text in [format!("{front}{text}={share}"), format!("{front}{text}:{share}")] {
                if let Ok(subset) = Subset::parse(&text) {
                    prop_assert_eq!(Subset::parse(&subset.to_string()), Ok(subset));
                }
            }
        }

        #[test]
        fn shares_on_the_way_come_to_a_whole(shares in proptest::collection::vec(0..=SHARE_MAX, 1..16), from in proptest::collection::vec(0..=SHARE_MAX, 16), at in 1_000..2_000u64) {
            let from = &from[..shares.len()];
            let sums = [shares.iter().map(|s| u64::from(*s)).sum::<u64>(), from.iter().map(|s| u64::from(*s)).sum()];
            prop_assume!(sums.iter().all(|sum| *sum > 0));
            let total: u32 = route(&shares, from, 1_000).shares_at(at).iter().sum();
            prop_assert!((SHARE_MAX - 16..=SHARE_MAX).contains(&total), "{}", total);
        }
    }
}
