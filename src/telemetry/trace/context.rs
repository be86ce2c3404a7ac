//! Which span of which trace: `traceparent`, as callers send it and those who are asked get it (W3C Trace Context, section 3.2). Pure.

use std::fmt;

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

    proptest! {
        #[test]
        fn what_is_written_is_read(trace in 1u128.., span in 1u64.., sampled: bool, junk in "\\PC{0,80}") {
            let context = Context { trace, span, sampled };
            prop_assert_eq!(Context::parse(&context.to_string()), Some(context));
            Context::parse(&junk);
        }
    }
}
