//! Which span of which trace: `traceparent` and `tracestate`, as callers send them and those who are asked get them (W3C Trace Context,
//! sections 3.2 and 3.3). Pure.

use std::fmt;
use std::sync::Arc;

/// One span, by its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    pub trace: u128,
    pub span: u64,
    /// Whether its trace is recorded.
    pub sampled: bool,
}

impl Context {
    /// Reads `00-<32 hex>-<16 hex>-<2 hex>`; of a later version, what begins like it. `None` for all else, which is as
    /// if nothing had been sent.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(5, '-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let version = u8::try_from(hex(version, 2)?).ok()?;
        if version == 0xff || (version == 0 && parts.next().is_some()) {
            return None;
        }
        let (trace, span) = (hex(trace, 32)?, u64::try_from(hex(span, 16)?).ok()?);
        let sampled = hex(flags, 2)? & 1 == 1;
        (trace != 0 && span != 0).then_some(Self { trace, span, sampled })
    }

    /// As it is written in logs.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace)
    }
}

/// What goes with a trace from one to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    pub context: Context,
    /// `tracestate`: what others noted of the trace, which is passed on as it came.
    pub state: Option<Arc<str>>,
}

impl Carried {
    /// Reads what a caller sent: one `traceparent`, and any number of `tracestate`. A bad `tracestate` is as if none had been sent; with a bad
    /// `traceparent`, or several, nothing was.
    pub fn parse<'a>(
        mut parents: impl Iterator<Item = &'a str>,
        states: impl Iterator<Item = &'a str>,
    ) -> Option<Self> {
        let context = Context::parse(parents.next()?)?;
        parents.next().is_none().then(|| Self { context, state: state(states) })
    }
}

/// Members of a `tracestate` (section 3.3.1.1).
const MEMBERS_MAX: usize = 32;
/// Octets of one that are passed on; what is longer is shortened, its long members first (section 3.3.1.5).
const STATE_OCTETS_MAX: usize = 512;
const LONG_OCTETS: usize = 128;

/// Several headers are one list; empty members are none.
fn state<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Arc<str>> {
    let mut members: Vec<&str> = Vec::new();
    for member in headers.flat_map(|header| header.split(',')) {
        let member = member.trim_matches([' ', '\t']);
        if member.is_empty() {
            continue;
        }
        let (key, value) = member.split_once('=')?;
        let known = members.iter().any(|other| other.split('=').next() == Some(key));
        if known || members.len() == MEMBERS_MAX || !is_key(key) || !is_value(value) {
            return None;
        }
        members.push(member);
    }
    let octets = |members: &[&str]| members.iter().map(|member| member.len() + 1).sum::<usize>();
    if octets(&members) > STATE_OCTETS_MAX + 1 {
        members.retain(|member| member.len() <= LONG_OCTETS);
    }
    while octets(&members) > STATE_OCTETS_MAX + 1 {
        members.pop();
    }
    (!members.is_empty()).then(|| members.join(",").into())
}

/// Section 3.3.1.3.1, and of a later draft that a key may begin with a digit.
fn is_key(key: &str) -> bool {
    let begins = |text: &str| text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    let plain =
        |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'_' | b'-' | b'*' | b'/');
    let part = |text: &str, max| begins(text) && text.len() <= max && text.bytes().all(plain);
    match key.split_once('@') {
        Some((tenant, system)) => part(tenant, 241) && part(system, 14),
        None => part(key, 256),
    }
}

/// Section 3.3.1.3.2: printable, without a comma or an equals sign.
fn is_value(value: &str) -> bool {
    let plain = |c: u8| matches!(c, b' '..=b'~') && !matches!(c, b',' | b'=');
    (1..=256).contains(&value.len()) && value.bytes().all(plain)
}

/// So many digits in lower case, and nothing else.
fn hex(text: &str, digits: usize) -> Option<u128> {
    let fits = text.len() == digits && text.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'f'));
    if fits { u128::from_str_radix(text, 16).ok() } else { None }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_standard_allows_is_read_and_nothing_else() {
        let text = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        let context = Context::parse(text).unwrap();
        assert_eq!((context.to_string().as_str(), context.sampled), (text, true));
        assert!(!Context::parse(&text.replace("-01", "-02")).unwrap().sampled);
        assert!(Context::parse(&text.replacen("00", "01", 1).replace("-01", "-01-later")).is_some());
        for bad in [
            "",
            "00",
            &text.to_uppercase(),
            &format!("{text}-more"),
            &text.replacen("00", "ff", 1),
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e473-00f067aa0ba902b7-01",
            "00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "0-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(Context::parse(bad), None, "{bad}");
        }
    }

    fn read(parents: &[&str], states: &[&str]) -> Option<Carried> {
        Carried::parse(parents.iter().copied(), states.iter().copied())
    }

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_tracestate_comes_with_one_traceparent_and_is_one_list() {
        let state = |states: &[&str]| read(&[PARENT], states).unwrap().state.map(|state| state.to_string());
        assert_eq!(state(&[]), None);
        for (given, wanted) in [
            (&["rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"][..], "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"),
            (&["a=1", "", " , b=2 ,,", "t1@sys=x y"], "a=1,b=2,t1@sys=x y"),
            (&["0a-_*/=!~"], "0a-_*/=!~"),
        ] {
            assert_eq!(state(given).as_deref(), Some(wanted), "{given:?}");
        }
        let many: Vec<String> = (0..33).map(|n| format!("k{n}=v")).collect();
        for bad in [
            "a",
            "=1",
            "a=",
            "A=1",
            "a=1,a=2",
            "a b=1",
            "a=1=2",
            "-a=1",
            "t@=1",
            "@s=1",
            "a=\u{e4}",
            &many.join(","),
        ] {
            assert_eq!(state(&["z=1", bad]), None, "{bad}");
        }
        assert!(state(&[&many[..32].join(",")]).is_some());
        assert_eq!(read(&[], &["a=1"]), None);
        assert_eq!(read(&["00-junk"], &["a=1"]), None);
        assert_eq!(read(&[PARENT, PARENT], &["a=1"]), None);
    }

    #[test]
    fn a_long_tracestate_loses_its_long_members_and_then_its_last() {
        let member = |key: char, octets: usize| format!("{key}={}", "x".repeat(octets - 2));
        let state = |members: &[String]| read(&[PARENT], &[&members.join(",")]).unwrap().state.unwrap();
        let fits = [member('a', 255), member('b', 256)];
        assert_eq!(*state(&fits), *fits.join(","), "512 octets");
        let long = [member('a', 100), member('b', 200), member('c', 100), member('d', 200), member('e', 100)];
        assert_eq!(*state(&long), *[&long[0][..], &long[2], &long[4]].join(","));
        let short: Vec<String> = ('a'..='f').map(|key| member(key, 128)).collect();
        assert_eq!(*state(&short), *short[..3].join(","));
    }

    proptest! {
        #[test]
        fn what_is_passed_on_is_a_tracestate_and_no_longer_than_may_be(given in prop::collection::vec("[a-c@=, \t!x]{0,90}", 0..20)) {
            let given: Vec<&str> = given.iter().map(String::as_str).collect();
            if let Some(passed) = read(&[PARENT], &given).unwrap().state {
                prop_assert!(passed.len() <= STATE_OCTETS_MAX && given.join(",").contains(passed.split(',').next().unwrap()));
                prop_assert_eq!(read(&[PARENT], &[&passed]).unwrap().state, Some(passed));
            }
        }

        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., sampled: bool, junk in "\\PC{0,80}") {
            let context = Context { trace, span, sampled };
            prop_assert_eq!(Context::parse(&context.to_string()), Some(context));
            Context::parse(&junk);
        }
    }
}
