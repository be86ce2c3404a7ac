//! From a text to an expression.
//!
//! One pass, no backtracking but over a single comparison, so that no text takes more than linear time: Consul's own
//! parser takes exponential time in nested parentheses. `or` binds weaker than `and`, that weaker than `not`. Keywords are
//! lower case and no reserved words (`not == 1` compares a field called `not`); white space may be left out around `==` and
//! `!=` and beside parentheses only.

use super::expression::{Expression, Match, Operator};
use super::{Fault, Limits, NESTING_MAX};

/// Reads a whole text.
pub(super) fn parse(text: &str, limits: &Limits) -> Result<Expression, Fault> {
    if text.len() > limits.octets_max {
        return Err(Fault::TooLong { octets: text.len(), max: limits.octets_max });
    }
    let mut parser = Parser { text, at: 0, depth: 0, matches: 0, matches_max: limits.matches_max };
    parser.space();
    let expression = parser.any()?;
    parser.space();
    if parser.at < text.len() {
        return Err(parser.fault("expected \"and\", \"or\" or the end of the expression"));
    }
    Ok(expression)
}

/// A letter, then letters, digits and underscores.
pub(super) fn is_identifier(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphabetic())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

struct Parser<'t> {
    text: &'t str,
    /// How far the text is read, in octets.
    at: usize,
    depth: usize,
    matches: usize,
    matches_max: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn next_is(&self, is: impl Fn(char) -> bool) -> bool {
        self.rest().starts_with(is)
    }

    fn fault(&self, what: &'static str) -> Fault {
        Fault::Syntax { at: self.at, what }
    }

    /// Passes white space; whether there was any.
    fn space(&mut self) -> bool {
        let rest = self.rest();
        let length = rest.len() - rest.trim_start_matches([' ', '\t', '\r', '\n']).len();
        self.at += length;
        length > 0
    }

    fn eat(&mut self, token: &str) -> bool {
        let found = self.rest().starts_with(token);
        self.at += if found { token.len() } else { 0 };
        found
    }

    /// Passes words, each with white space before it, the last one also behind where `open`; all or nothing.
    fn words(&mut self, words: &[&str], open: bool) -> bool {
        let begun = self.at;
        let found = words.iter().all(|word| self.space() && self.eat(word)) && (!open || self.space());
        if !found {
            self.at = begun;
        }
        found
    }

    /// Runs a rule one level deeper.
    fn deeper(
        &mut self,
        rule: impl FnOnce(&mut Self) -> Result<Expression, Fault>,
    ) -> Result<Expression, Fault> {
        if self.depth == NESTING_MAX {
            return Err(Fault::TooDeep);
        }
        self.depth += 1;
        let result = rule(self);
        self.depth -= 1;
        result
    }

    fn any(&mut self) -> Result<Expression, Fault> {
        let mut parts = vec![self.all()?];
        while self.words(&["or"], true) {
            parts.push(self.all()?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Expression::Any(parts) })
    }

    fn all(&mut self) -> Result<Expression, Fault> {
        let mut parts = vec![self.negated()?];
        while self.words(&["and"], true) {
            parts.push(self.negated()?);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Expression::All(parts) })
    }

    fn negated(&mut self) -> Result<Expression, Fault> {
        let (begun, matches) = (self.at, self.matches);
        if !(self.eat("not") && self.space()) {
            self.at = begun;
            return self.grouped();
        }
        match self.deeper(Self::negated) {
            Ok(Expression::Not(inner)) => Ok(*inner),
            Ok(inner) => Ok(Expression::Not(Box::new(inner))),
            Err(fault) if fault.is_limit() => Err(fault),
            // It may have been the name of a field, or a value.
            Err(fault) => {
                (self.at, self.matches) = (begun, matches);
                self.matching().map_err(|other| if other.is_limit() { other } else { fault })
            }
        }
    }

    fn grouped(&mut self) -> Result<Expression, Fault> {
        if !self.eat("(") {
            return self.matching();
        }
        self.space();
        let inner = self.deeper(Self::any)?;
        self.space();
        if self.eat(")") { Ok(inner) } else { Err(self.fault("Unmatched parentheses")) }
    }

    /// One comparison.
    fn matching(&mut self) -> Result<Expression, Fault> {
        self.matches += 1;
        if self.matches > self.matches_max {
            return Err(Fault::TooMany { max: self.matches_max });
        }
        if !self.next_is(|c| c.is_ascii_alphabetic()) {
            let value = self.value("expected a selector, a value, \"not\" or \"(\"")?;
            return self.membership(value);
        }
        let selector = self.selector()?;
        if let Some(operator) = self.with_value() {
            let value = self.value("expected a value")?;
            return Ok(Expression::Match(Match { selector, operator, value }));
        }
        if let Some(operator) = self.without_value() {
            return Ok(Expression::Match(Match { selector, operator, value: String::new() }));
        }
        self.membership(selector.join("."))
    }

    /// An operator between a selector and a value.
    fn with_value(&mut self) -> Option<Operator> {
        let begun = self.at;
        self.space();
        for (token, operator) in [("==", Operator::Equal), ("!=", Operator::NotEqual)] {
            if self.eat(token) {
                self.space();
                return Some(operator);
            }
        }
        self.at = begun;
        let words: [(&[&str], _); 4] = [
            (&["contains"], Operator::In),
            (&["not", "contains"], Operator::NotIn),
            (&["matches"], Operator::Matches),
            (&["not", "matches"], Operator::NotMatches),
        ];
        words.into_iter().find(|(words, _)| self.words(words, true)).map(|(_, operator)| operator)
    }

    fn without_value(&mut self) -> Option<Operator> {
        let words: [(&[&str], _); 2] =
            [(&["is", "empty"], Operator::IsEmpty), (&["is", "not", "empty"], Operator::IsNotEmpty)];
        words.into_iter().find(|(words, _)| self.words(words, false)).map(|(_, operator)| operator)
    }

    /// What follows a value that stands first.
    fn membership(&mut self, value: String) -> Result<Expression, Fault> {
        let operator = if self.words(&["in"], true) {
            Operator::In
        } else if self.words(&["not", "in"], true) {
            Operator::NotIn
        } else {
            return Err(
                self.fault("expected \"==\", \"!=\", \"in\", \"contains\", \"matches\" or \"is empty\"")
            );
        };
        if !self.next_is(|c| c.is_ascii_alphabetic()) {
            return Err(self.fault("Invalid selector"));
        }
        Ok(Expression::Match(Match { selector: self.selector()?, operator, value }))
    }

    /// Names, separated by dots or in brackets. The next character is a letter.
    fn selector(&mut self) -> Result<Vec<String>, Fault> {
        let mut names = vec![self.identifier()];
        loop {
            let begun = self.at;
            if self.eat(".") && self.next_is(|c| c.is_ascii_alphabetic()) {
                names.push(self.identifier());
                continue;
            }
            self.at = begun;
            if !self.eat("[") {
                return Ok(names);
            }
            self.space();
            if !self.next_is(|c| c == '"' || c == '`') {
                return Err(self.fault("Invalid index"));
            }
            names.push(self.string()?);
            self.space();
            if !self.eat("]") {
                return Err(self.fault("Unclosed index expression"));
            }
        }
    }

    fn identifier(&mut self) -> String {
        let rest = self.rest();
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let length = rest.find(|c| !is_part(c)).unwrap_or(rest.len());
        let name = rest.get(..length).unwrap_or("").to_owned();
        self.at += length;
        name
    }

    fn value(&mut self, expected: &'static str) -> Result<String, Fault> {
        match self.rest().chars().next() {
            Some(c) if c.is_ascii_alphabetic() => Ok(self.selector()?.join(".")),
            Some(c) if c.is_ascii_digit() || c == '-' => self.number(),
            Some('"' | '`') => self.string(),
            _ => Err(self.fault(expected)),
        }
    }

    /// A decimal number, as it stands.
    fn number(&mut self) -> Result<String, Fault> {
        let rest = self.rest();
        let length = rest.find([' ', '\t', '\r', '\n', ')']).unwrap_or(rest.len());
        let text = rest.get(..length).unwrap_or("");
        let digits = text.strip_prefix('-').unwrap_or(text);
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, "0"));
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if !is_digits(whole) || !is_digits(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
            return Err(self.fault("Invalid number literal"));
        }
        let text = text.to_owned();
        self.at += length;
        Ok(text)
    }

    /// A text in back quotes, as it stands, or in double quotes, with Go's escapes. The next character is the quote.
    fn string(&mut self) -> Result<String, Fault> {
        let body = self.rest().get(1..).unwrap_or("");
        if self.rest().starts_with('`') {
            let end = body.find('`').ok_or_else(|| self.fault("Unterminated string literal"))?;
            // Go drops carriage returns.
            let text = body.get(..end).unwrap_or("").replace('\r', "");
            self.at += end + 2;
            return Ok(text);
        }
        let mut octets = Vec::new();
        let mut rest = body;
        loop {
            let mut chars = rest.chars();
            match chars.next() {
                None => return Err(self.fault("Unterminated string literal")),
                Some('"') => {
                    let text = String::from_utf8(octets);
                    let text = text.map_err(|_| self.fault("invalid syntax: not UTF-8"))?;
                    self.at = self.text.len() - chars.as_str().len();
                    return Ok(text);
                }
                Some('\n') => return Err(self.fault("invalid syntax: a line end in a string literal")),
                Some('\\') => {
                    let escape = unescape(chars.as_str(), &mut octets);
                    rest = escape.ok_or_else(|| self.fault("invalid syntax: no such escape"))?;
                }
                Some(c) => {
                    octets.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                    rest = chars.as_str();
                }
            }
        }
    }
}

/// Appends what an escape of Go's stands for; what follows it. `text` begins behind the backslash.
fn unescape<'t>(text: &'t str, octets: &mut Vec<u8>) -> Option<&'t str> {
    let mut chars = text.chars();
    let plain = match chars.next()? {
        'a' => 7,
        'b' => 8,
        'f' => 12,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 11,
        c @ ('\\' | '"') => c as u8,
        'x' => return numbered(chars.as_str(), 2, 16, octets),
        '0'..='7' => return numbered(text, 3, 8, octets),
        'u' => return numbered(chars.as_str(), 4, 16, octets),
        'U' => return numbered(chars.as_str(), 8, 16, octets),
        _ => return None,
    };
    octets.push(plain);
    Some(chars.as_str())
}

/// An octet (`\xff`, `\377`) or a character (`\u00e4`) by its number.
fn numbered<'t>(text: &'t str, digits: usize, radix: u32, octets: &mut Vec<u8>) -> Option<&'t str> {
    let (number, rest) = text.split_at_checked(digits)?;
    if !number.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let number = u32::from_str_radix(number, radix).ok()?;
    if digits < 4 {
        octets.push(u8::try_from(number).ok()?);
    } else {
        octets.extend_from_slice(char::from_u32(number)?.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Some(rest)
}
