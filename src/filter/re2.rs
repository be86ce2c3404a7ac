//! Regular expressions as Consul's users write them, in RE2's syntax.
//!
//! Rust's differs in small things: `\d`, `\w`, `\s` and `\b` are ASCII's in RE2, `\Q...\E` quotes, and within brackets `[`, `&&`
//! and `~~` are plain characters. They are rewritten; the rest is the same. Both run in linear time.

use regex::{Regex, RegexBuilder};

/// Octets of the compiled form, and of what a search keeps.
const COMPILED_OCTETS_MAX: usize = 256 * 1024;
const NESTING_MAX: u32 = 50;

/// Compiles, or says what is wrong.
pub(super) fn compile(text: &str) -> Result<Regex, String> {
    let mut builder = RegexBuilder::new(&translated(text));
    let built = builder.size_limit(COMPILED_OCTETS_MAX).nest_limit(NESTING_MAX).build();
    built.map_err(|error| match error {
        regex::Error::CompiledTooBig(max) => format!("its compiled form is larger than {max} octets"),
        other => {
            let shown = other.to_string();
            let reason = shown.lines().last().unwrap_or("").trim();
            reason.strip_prefix("error: ").unwrap_or(reason).to_owned()
        }
    })
}

fn translated(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    // Within brackets; there a `]` that comes first is a member.
    let (mut class, mut first) = (false, false);
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let begins = std::mem::take(&mut first);
        rest = after;
        match c {
            '\\' => rest = escape(after, class, &mut out),
            '[' if !class => {
                (class, first) = (true, true);
                out.push('[');
                if let Some(more) = after.strip_prefix('^') {
                    out.push('^');
                    rest = more;
                }
            }
            ']' if class && begins => out.push_str("\\]"),
            ']' if class => {
                class = false;
                out.push(']');
            }
            '[' if after.starts_with(':') => {
                let end = after.find(":]").map_or(0, |end| end + 2);
                out.push('[');
                out.push_str(&after[..end]);
                rest = &after[end..];
            }
            '[' | '&' | '~' if class => {
                out.push('\\');
                out.push(c);
            }
            c => out.push(c),
        }
    }
    out
}

/// Rewrites what stands behind a backslash; what follows it.
fn escape<'t>(after: &'t str, class: bool, out: &mut String) -> &'t str {
    let Some(c) = after.chars().next() else {
        out.push('\\');
        return after;
    };
    let rest = &after[c.len_utf8()..];
    match c {
        'd' => out.push_str("[0-9]"),
        'D' => out.push_str("[^0-9]"),
        'w' => out.push_str("[0-9A-Za-z_]"),
        'W' => out.push_str("[^0-9A-Za-z_]"),
        's' => out.push_str("[\\t\\n\\f\\r ]"),
        'S' => out.push_str("[^\\t\\n\\f\\r ]"),
        'b' if !class => out.push_str("(?-u:\\b)"),
        'B' if !class => out.push_str("(?-u:\\B)"),
        'Q' if !class => {
            let (quoted, rest) = rest.split_once("\\E").unwrap_or((rest, ""));
            out.push_str(&regex::escape(quoted));
            return rest;
        }
        c => {
            out.push('\\');
            out.push(c);
        }
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_re2_does() {
        for (regex, text, expected) in [
            ("^v1", "v1.2", true),
            ("^v1$", "v1.2", false),
            (r"^\d+$", "42", true),
            (r"^\d$", "٣", false),
            (r"^\w+$", "naïve", false),
            (r"^[\w.]+$", "a.b_1", true),
            (r"^[^\s]+$", "a b", false),
            ("[[]", "[", true),
            ("^[]a]+$", "]a", true),
            ("^[^]a]+$", "bc", true),
            ("^[a&&b]+$", "&a", true),
            ("^[[:alpha:]]+$", "abc", true),
            (r"\bweb\b", "a web b", true),
            (r"^\Qa.b\E$", "a.b", true),
            (r"^\Qa.b\E$", "axb", false),
            ("(?i)WEB", "web", true),
            (r"\pL", "ä", true),
            (r"a\.b", "axb", false),
        ] {
            assert_eq!(compile(regex).unwrap().is_match(text), expected, "{regex} on {text}");
        }
    }

    #[test]
    fn says_what_is_wrong_and_stays_small() {
        assert_eq!(compile("(").unwrap_err(), "unclosed group");
        assert!(compile(r"a{1000}{1000}").unwrap_err().contains("larger than"));
        assert!(compile(&"(".repeat(1000)).is_err());
        assert!(compile("\\").is_err());
    }
}
