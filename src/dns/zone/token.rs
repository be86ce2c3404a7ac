//! The tokens of a master file (RFC 1035 section 5.1): one logical line at a time.
//!
//! A token is a slice of the file with its escapes still in it, because `\.` and `.` differ in a name and not in a
//! string; who reads the token knows which it is. Parentheses join lines, a quoted string ends on its own line,
//! and a quote directly behind `=` belongs to the token (`alpn="h2,h3"`, RFC 9460 section 2.1). Errors carry the
//! line and leave the reader behind the line end, so that all errors of a file can be told at once.

/// A word or a quoted string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    /// Escapes not yet read, outer quotes taken off.
    pub(super) text: &'a [u8],
    pub(super) quoted: bool,
}

/// The tokens from one line end to the next that stands outside parentheses.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Where the entry begins; the first line is 1.
    pub(super) line: u32,
    /// It begins with white space: the owner is the one before.
    pub(super) indented: bool,
    pub(super) tokens: Vec<Token<'a>>,
}

/// A place in a file.
pub(super) struct Tokens<'a> {
    text: &'a [u8],
    at: usize,
    line: u32,
    /// Octets that an entry may have.
    limit: usize,
}

impl<'a> Tokens<'a> {
    pub(super) fn new(text: &'a [u8], limit: usize) -> Self {
        // A byte order mark is what some editors put first.
        let at = if text.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
        Self { text, at, line: 1, limit }
    }

    /// The next entry that has tokens, or the line and the reason why it has none.
    pub(super) fn next_entry(&mut self) -> Option<Result<Entry<'a>, (u32, String)>> {
        while self.at < self.text.len() {
            match self.entry() {
                Ok(entry) if entry.tokens.is_empty() => {}
                Ok(entry) => return Some(Ok(entry)),
                Err(error) => {
                    self.skip_line();
                    return Some(Err(error));
                }
            }
        }
        None
    }

    fn entry(&mut self) -> Result<Entry<'a>, (u32, String)> {
        let (start, line) = (self.at, self.line);
        let mut entry =
            Entry { line, indented: matches!(self.peek(), Some(b' ' | b'\t')), tokens: Vec::new() };
        let mut open = None;
        while let Some(octet) = self.peek() {
            if self.at - start > self.limit {
                return Err((line, format!("entry has more than {} octets; split it", self.limit)));
            }
            match octet {
                b' ' | b'\t' => self.at += 1,
                b';' => self.comment(),
                b'\n' => {
                    self.end_line();
                    if open.is_none() {
                        return Ok(entry);
                    }
                }
                b'\r' if self.text.get(self.at + 1) == Some(&b'\n') => self.at += 1,
                b'(' if open.is_none() => {
                    open = Some(self.line);
                    self.at += 1;
                }
                b'(' => return Err((self.line, "parentheses do not nest".to_owned())),
                b')' if open.take().is_some() => self.at += 1,
                b')' => return Err((self.line, "`)` without `(`".to_owned())),
                b'"' => entry.tokens.push(self.string(start)?),
                _ => entry.tokens.push(self.word(start)?),
            }
        }
        match open {
            Some(line) => Err((line, "`(` is never closed".to_owned())),
            None => Ok(entry),
        }
    }

    fn string(&mut self, start: usize) -> Result<Token<'a>, (u32, String)> {
        self.at += 1;
        let from = self.at;
        self.string_end(start)?;
        Ok(Token { text: &self.text[from..self.at - 1], quoted: true })
    }

    /// Moves behind the quote that ends a string.
    fn string_end(&mut self, start: usize) -> Result<(), (u32, String)> {
        while let Some(octet) = self.peek() {
            match octet {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\n' => break,
                b'\r' if self.text.get(self.at + 1) == Some(&b'\n') => break,
                _ => self.octet(octet, start)?,
            }
        }
        Err((self.line, "string is not closed on its line; `\"` is missing".to_owned()))
    }

    fn word(&mut self, start: usize) -> Result<Token<'a>, (u32, String)> {
        let from = self.at;
        while let Some(octet) = self.peek() {
            match octet {
                b'"' if self.text[from..self.at].ends_with(b"=") => {
                    self.at += 1;
                    self.string_end(start)?;
                }
                b' ' | b'\t' | b'\n' | b'\r' | b';' | b'(' | b')' | b'"' => break,
                _ => self.octet(octet, start)?,
            }
        }
        if self.at == from {
            return Err((self.line, "carriage return inside a line".to_owned()));
        }
        Ok(Token { text: &self.text[from..self.at], quoted: false })
    }

    /// Takes one octet of a token, with the one it escapes.
    fn octet(&mut self, octet: u8, start: usize) -> Result<(), (u32, String)> {
        if self.at - start > self.limit {
            return Err((self.line, format!("entry has more than {} octets; split it", self.limit)));
        }
        if octet != b'\t' && octet.is_ascii_control() {
            return Err((self.line, format!("control character; write it as \\{octet:03}")));
        }
        self.at += 1;
        if octet == b'\\' {
            match self.peek() {
                Some(escaped) if !escaped.is_ascii_control() => self.at += 1,
                _ => return Err((self.line, "`\\` with nothing behind it".to_owned())),
            }
        }
        Ok(())
    }

    fn comment(&mut self) {
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(|octet| *octet == b'\n').unwrap_or(rest.len());
    }

    fn end_line(&mut self) {
        self.at += 1;
        self.line = self.line.saturating_add(1);
    }

    fn skip_line(&mut self) {
        self.comment();
        if self.peek().is_some() {
            self.end_line();
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }
}

/// The octets of a string: `\DDD` is an octet by its decimal number, `\X` is X without its meaning.
pub(super) fn unescape(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut octets = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let (octet, _, length) = octet_at(&text[at..])?;
        octets.push(octet);
        at += length;
    }
    Ok(octets)
}

/// The first octet of a text that is not empty, whether it was escaped, and how long its spelling is.
pub(super) fn octet_at(text: &[u8]) -> Result<(u8, bool, usize), String> {
    match text {
        [b'\\', a, b, c, ..] if [a, b, c].iter().all(|digit| digit.is_ascii_digit()) => {
            let number = [a, b, c].iter().fold(0u32, |sum, digit| sum * 10 + u32::from(*digit - b'0'));
            let octet = u8::try_from(number).map_err(|_| format!("\\{number} is above \\255"))?;
            Ok((octet, true, 4))
        }
        [b'\\', digit, ..] if digit.is_ascii_digit() => {
            Err("`\\` needs three digits or a character".to_owned())
        }
        [b'\\', octet, ..] => Ok((*octet, true, 2)),
        [b'\\'] | [] => Err("`\\` with nothing behind it".to_owned()),
        [octet, ..] => Ok((*octet, false, 1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entries(text: &str) -> Vec<(u32, bool, Vec<String>)> {
        let mut tokens = Tokens::new(text.as_bytes(), 1000);
        std::iter::from_fn(|| tokens.next_entry())
            .map(|entry| match entry {
                Ok(entry) => {
                    let words = entry.tokens.iter().map(|token| {
                        let text = String::from_utf8_lossy(token.text);
                        if token.quoted { format!("<{text}>") } else { text.into_owned() }
                    });
                    (entry.line, entry.indented, words.collect())
                }
                Err((line, reason)) => (line, false, vec![format!("error: {reason}")]),
            })
            .collect()
    }

    #[test]
    fn lines_words_and_strings() {
        for (text, expected) in [
            ("a b\tc ; d", vec![(1, false, vec!["a", "b", "c"])]),
            ("a\r\n\r\n b\r\n", vec![(1, false, vec!["a"]), (3, true, vec!["b"])]),
            ("a ( b ; c\n d\n) e\nf", vec![(1, false, vec!["a", "b", "d", "e"]), (4, false, vec!["f"])]),
            ("a \"b ; (c\" d", vec![(1, false, vec!["a", "<b ; (c>", "d"])]),
            ("a \"\"", vec![(1, false, vec!["a", "<>"])]),
            (r#"a "b\"c" d\;e \( f\\"#, vec![(1, false, vec!["a", r#"<b\"c>"#, r"d\;e", r"\(", r"f\\"])]),
            (r#"a k="x y" z=1"#, vec![(1, false, vec!["a", r#"k="x y""#, "z=1"])]),
            ("\u{feff}a", vec![(1, false, vec!["a"])]),
            ("\n\n;x\n  \n", vec![]),
        ] {
            let expected: Vec<_> = expected
                .into_iter()
                .map(|(line, indented, words)| {
                    (line, indented, words.into_iter().map(str::to_owned).collect())
                })
                .collect();
            assert_eq!(entries(text), expected, "{text:?}");
        }
    }

    #[test]
    fn errors_name_their_line_and_the_next_line_is_read() {
        for (text, line, reason) in [
            ("a \"b\nc", 1, "not closed"),
            ("x\na ( b\nc", 2, "never closed"),
            ("a )\nc", 1, "without"),
            ("a ( (\nc", 1, "nest"),
            ("a\rb\nc", 1, "carriage return"),
            ("a\u{1}\nc", 1, "\\001"),
            ("a\\\nc", 1, "nothing behind"),
            ("a\0\nc", 1, "\\000"),
        ] {
            let found = entries(text);
            let error = found.iter().find(|entry| entry.2[0].starts_with("error")).unwrap();
            assert!(error.0 == line && error.2[0].contains(reason), "{text:?}: {error:?}");
            if reason != "never closed" {
                assert_eq!(found.last().unwrap().2, ["c"], "{text:?}");
            }
        }
        let long = format!("a {}\nb", "x ".repeat(1000));
        assert!(entries(&long)[0].2[0].contains("more than 1000"));
    }

    #[test]
    fn escapes() {
        for (text, expected) in
            [(r"a\.b", Some(&b"a.b"[..])), (r"\000\255", Some(&[0, 255])), (r"\256", None)]
        {
            assert_eq!(unescape(text.as_bytes()).ok().as_deref(), expected, "{text}");
        }
        for text in [r"\1", r"\12", r"\1x3", "\\"] {
            assert!(unescape(text.as_bytes()).is_err(), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn anything_ends(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut tokens = Tokens::new(&text, 100);
            let mut count = 0;
            while let Some(entry) = tokens.next_entry() {
                count += 1;
                prop_assert!(count <= text.len());
                for token in entry.iter().flat_map(|entry| &entry.tokens) {
                    let _ = unescape(token.text);
                }
            }
        }
    }
}
