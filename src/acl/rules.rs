//! The rules of a policy, in HCL or JSON (Consul's ACL rule specification).
//!
//! A reader of our own: rules are one level of blocks with texts in them, a small part of HCL, and what is not that part is
//! refused with its place. Resources that Rollcall does not have (keys, sessions, the mesh) are read and kept, since the
//! policies of a Consul name them, and come to nothing.

use serde_json::Value;

/// What a rule is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Resource {
    Acl,
    Agent,
    Event,
    Identity,
    Key,
    Keyring,
    Mesh,
    Node,
    Operator,
    Peering,
    Query,
    Service,
    Session,
}

impl Resource {
    const ALL: [(Self, &'static str); 13] = [
        (Self::Acl, "acl"),
        (Self::Agent, "agent"),
        (Self::Event, "event"),
        (Self::Identity, "identity"),
        (Self::Key, "key"),
        (Self::Keyring, "keyring"),
        (Self::Mesh, "mesh"),
        (Self::Node, "node"),
        (Self::Operator, "operator"),
        (Self::Peering, "peering"),
        (Self::Query, "query"),
        (Self::Service, "service"),
        (Self::Session, "session"),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(resource, _)| *resource == self).map_or("", |(_, word)| word)
    }

    /// Whether there is one of it, and not many with names.
    pub fn is_single(self) -> bool {
        matches!(self, Self::Acl | Self::Keyring | Self::Mesh | Self::Operator | Self::Peering)
    }

    fn parse(word: &str) -> Option<Self> {
        Self::ALL.iter().find(|(_, known)| *known == word).map(|(resource, _)| *resource)
    }
}

/// What a rule grants. At equal specificity the first of these counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Access {
    Deny,
    Write,
    /// Of keys alone.
    List,
    Read,
}

impl Access {
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "deny" => Some(Self::Deny),
            "read" => Some(Self::Read),
            "list" => Some(Self::List),
            "write" => Some(Self::Write),
            _ => None,
        }
    }

    /// Whether what is granted holds what is wanted.
    pub fn holds(self, wanted: Self) -> bool {
        self != Self::Deny && self <= wanted
    }
}

/// Whom a rule is for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Segment {
    /// The resource has no names.
    Single,
    Exact(String),
    Prefix(String),
}

/// One line of a policy. Names are in lower case: names of ours differ not by case, and a rule must not be passed by it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Rule {
    pub resource: Resource,
    pub segment: Segment,
    pub access: Access,
}

/// Rules in one policy, at most.
const RULES_MAX: usize = 10_000;

/// Reads the rules of a policy. Errs with what is wrong and where.
pub fn parse(text: &str) -> Result<Vec<Rule>, String> {
    let entries = match text.trim_start().starts_with('{') {
        true => of_json(text)?,
        false => Reader::new(text).entries()?,
    };
    if entries.len() > RULES_MAX {
        return Err(format!("{} rules; at most {RULES_MAX} are allowed in one policy", entries.len()));
    }
    entries
        .into_iter()
        .map(rule)
        .collect::<Result<Vec<_>, _>>()
        .map(|rules| rules.into_iter().flatten().collect())
}

/// One entry as it stands, whatever the syntax: `word label { fields }` or `word = value`.
struct Entry {
    word: String,
    label: Option<String>,
    /// `policy` alone where there is no label.
    fields: Vec<(String, String)>,
}

/// None for what an entry says that has no effect here by design.
fn rule(entry: Entry) -> Result<Option<Rule>, String> {
    let Entry { word, label, fields } = entry;
    let (name, prefix) = match word.strip_suffix("_prefix") {
        Some(name) => (name, true),
        None => (word.as_str(), false),
    };
    let unknown = || format!("unknown rule {word:?}");
    let resource = Resource::parse(name).ok_or_else(unknown)?;
    if resource.is_single() && prefix {
        return Err(unknown());
    }
    let segment = match (resource.is_single(), label) {
        (true, None) => Segment::Single,
        (false, Some(label)) if prefix => Segment::Prefix(label.to_ascii_lowercase()),
        (false, Some(label)) => Segment::Exact(label.to_ascii_lowercase()),
        (true, Some(_)) => return Err(format!("{word} has no names; write {word} = \"read\"")),
        (false, None) => {
            return Err(format!("{word} needs a name; write {word} \"name\" {{ policy = \"read\" }}"));
        }
    };
    let mut access = None;
    for (field, value) in fields {
        match field.as_str() {
            "policy" => {
                let parsed =
                    Access::parse(&value).filter(|a| *a != Access::List || resource == Resource::Key);
                access = Some(parsed.ok_or_else(|| format!("invalid {word} policy {value:?}"))?);
            }
            // Of the mesh, of Enterprise.
            "intentions" if resource == Resource::Service => {
                Access::parse(&value).ok_or_else(|| format!("invalid {word} intentions policy {value:?}"))?;
            }
            _ => return Err(format!("unknown key {field:?} in {word}")),
        }
    }
    // Consul takes an empty policy for none.
    Ok(access.map(|access| Rule { resource, segment, access }))
}

fn of_json(text: &str) -> Result<Vec<Entry>, String> {
    let value: Value = serde_json::from_str(text).map_err(|e| e.to_string())?;
    let Value::Object(object) = value else { return Err("an object is expected".to_owned()) };
    let mut entries = Vec::new();
    for (word, value) in object {
        match value {
            Value::String(policy) => {
                entries.push(Entry { word, label: None, fields: vec![("policy".into(), policy)] });
            }
            Value::Object(labels) => labelled(&word, labels, &mut entries)?,
            // How HCL writes blocks that repeat.
            Value::Array(parts) => {
                for part in parts {
                    let Value::Object(labels) = part else { return Err(format!("{word} holds no object")) };
                    labelled(&word, labels, &mut entries)?;
                }
            }
            _ => return Err(format!("{word} holds neither a text nor an object")),
        }
    }
    Ok(entries)
}

fn labelled(
    word: &str,
    labels: serde_json::Map<String, Value>,
    entries: &mut Vec<Entry>,
) -> Result<(), String> {
    for (label, fields) in labels {
        let mut read = Vec::new();
        let parts = match fields {
            Value::Array(parts) => parts,
            one => vec![one],
        };
        for part in parts {
            let Value::Object(part) = part else { return Err(format!("{word} {label:?} holds no object")) };
            for (field, value) in part {
                let Value::String(value) = value else {
                    return Err(format!("{field} of {word} {label:?} is no text"));
                };
                read.push((field, value));
            }
        }
        entries.push(Entry { word: word.to_owned(), label: Some(label), fields: read });
    }
    Ok(())
}

/// Reads the part of HCL that rules are written in.
struct Reader<'a> {
    rest: &'a str,
    line: usize,
}

#[derive(Debug, PartialEq, Eq)]
enum Part {
    Word(String),
    Text(String),
    Open,
    Close,
    Equals,
    Comma,
    End,
}

impl<'a> Reader<'a> {
    fn new(text: &'a str) -> Self {
        Self { rest: text, line: 1 }
    }

    fn entries(mut self) -> Result<Vec<Entry>, String> {
        let mut entries = Vec::new();
        loop {
            let word = match self.next()? {
                Part::End => return Ok(entries),
                Part::Word(word) | Part::Text(word) => word,
                other => return self.unexpected(&other),
            };
            let entry = match self.next()? {
                Part::Equals => {
                    let policy = self.text()?;
                    Entry { word, label: None, fields: vec![("policy".into(), policy)] }
                }
                Part::Text(label) => {
                    match self.next()? {
                        Part::Open => {}
                        Part::Equals => self.expect(&Part::Open)?,
                        other => return self.unexpected(&other),
                    }
                    Entry { word, label: Some(label), fields: self.fields()? }
                }
                other => return self.unexpected(&other),
            };
            entries.push(entry);
            if entries.len() > RULES_MAX {
                return Err(format!("more than {RULES_MAX} rules in one policy"));
            }
        }
    }

    /// Up to the closing brace.
    fn fields(&mut self) -> Result<Vec<(String, String)>, String> {
        let mut fields = Vec::new();
        loop {
            match self.next()? {
                Part::Close => return Ok(fields),
                Part::Comma => {}
                Part::Word(field) | Part::Text(field) => {
                    self.expect(&Part::Equals)?;
                    fields.push((field, self.text()?));
                }
                other => return self.unexpected(&other),
            }
        }
    }

    fn text(&mut self) -> Result<String, String> {
        match self.next()? {
            Part::Text(text) => Ok(text),
            other => self.unexpected(&other),
        }
    }

    fn expect(&mut self, wanted: &Part) -> Result<(), String> {
        match self.next()? {
            part if part == *wanted => Ok(()),
            other => self.unexpected(&other),
        }
    }

    fn unexpected<T>(&self, part: &Part) -> Result<T, String> {
        let what = match part {
            Part::Word(word) => format!("{word:?}"),
            Part::Text(text) => format!("the text {text:?}"),
            Part::Open => "\"{\"".into(),
            Part::Close => "\"}\"".into(),
            Part::Equals => "\"=\"".into(),
            Part::Comma => "\",\"".into(),
            Part::End => "the end".into(),
        };
        Err(format!("line {}: {what} is not expected here", self.line))
    }

    fn next(&mut self) -> Result<Part, String> {
        self.skip()?;
        let mut chars = self.rest.chars();
        let Some(first) = chars.next() else { return Ok(Part::End) };
        let part = match first {
            '{' => Part::Open,
            '}' => Part::Close,
            '=' => Part::Equals,
            ',' => Part::Comma,
            '"' => return self.quoted(),
            c if c.is_ascii_alphabetic() || c == '_' => {
                let end = self.rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != '-');
                let (word, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
                self.rest = rest;
                return Ok(Part::Word(word.to_owned()));
            }
            other => return Err(format!("line {}: {other:?} is not expected here", self.line)),
        };
        self.rest = chars.as_str();
        Ok(part)
    }

    fn quoted(&mut self) -> Result<Part, String> {
        let mut text = String::new();
        let mut chars = self.rest.chars();
        chars.next();
        loop {
            let taken = match chars.next() {
                None | Some('\n') => return Err(format!("line {}: a text is not closed", self.line)),
                Some('"') => {
                    self.rest = chars.as_str();
                    return Ok(Part::Text(text));
                }
                Some('\\') => match chars.next() {
                    Some(c @ ('"' | '\\')) => c,
                    Some('n') => '\n',
                    Some('t') => '\t',
                    _ => return Err(format!("line {}: an escape in a text is not known", self.line)),
                },
                Some(c) => c,
            };
            text.push(taken);
        }
    }

    /// Spaces and comments.
    fn skip(&mut self) -> Result<(), String> {
        loop {
            let trimmed = self.rest.trim_start();
            self.line += self.rest[..self.rest.len() - trimmed.len()].matches('\n').count();
            self.rest = trimmed;
            if self.rest.starts_with('#') || self.rest.starts_with("//") {
                self.rest = self.rest.find('\n').map_or("", |at| &self.rest[at..]);
            } else if let Some(comment) = self.rest.strip_prefix("/*") {
                let Some(end) = comment.find("*/") else {
                    return Err(format!("line {}: a comment is not closed", self.line));
                };
                self.line += comment[..end].matches('\n').count();
                self.rest = &comment[end + 2..];
            } else {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn both_syntaxes_say_the_same() {
        let hcl = r#"
            # a comment
            service "Web" { policy = "write" intentions = "read" }
            service_prefix "" { policy = "read", } // another
            node "n1" = { "policy" = "deny" }
            /* and
               another */ key "a/b" { policy = "list" }
            operator = "read"
            acl = "write"
        "#;
        let json = r#"{ "service": { "web": { "policy": "write", "intentions": "read" } },
            "service_prefix": [{ "": [{ "policy": "read" }] }], "node": { "N1": { "policy": "deny" } },
            "key": { "a/b": { "policy": "list" } }, "operator": "read", "acl": "write" }"#;
        let rules = parse(hcl).unwrap();
        assert_eq!(rules, parse(json).unwrap());
        assert_eq!(rules.len(), 6);
        let web = Rule {
            resource: Resource::Service,
            segment: Segment::Exact("web".into()),
            access: Access::Write,
        };
        assert_eq!(rules[0], web);
        assert_eq!(
            (parse(""), parse("{}"), parse(r#"service "a" {}"#)),
            (Ok(vec![]), Ok(vec![]), Ok(vec![]))
        );
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, wrong) in [
            ("service \"a\" {\n policy = \"all\" }", "invalid service policy \"all\""),
            ("service \"a\" { policy = \"list\" }", "invalid service policy \"list\""),
            ("servce \"a\" { policy = \"read\" }", "unknown rule \"servce\""),
            ("operator_prefix = \"read\"", "unknown rule \"operator_prefix\""),
            ("operator \"x\" { policy = \"read\" }", "operator has no names"),
            ("service = \"read\"", "service needs a name"),
            ("service \"a\" { polcy = \"read\" }", "unknown key \"polcy\""),
            ("service \"a\"\n\n{ policy = read }", "line 3: \"read\" is not expected"),
            ("service \"a { policy", "line 1: a text is not closed"),
            ("service \"a\" {", "the end is not expected"),
            ("/* service", "a comment is not closed"),
            ("{\"service\": 1}", "service holds neither"),
            ("{\"service\": {\"a\": 1}}", "service \"a\" holds no object"),
            ("{\"service\"", "EOF"),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(wrong), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_fall(text in "[a-z_\"{}=,#/*\\\\ \n]{0,80}") {
            let _ = parse(&text);
        }

        #[test]
        fn what_is_written_is_read(names in prop::collection::vec(("[a-z0-9/_\" ]{0,12}", any::<bool>(), 0..3u8), 0..20)) {
            let words = ["deny", "read", "write"];
            let mut text = String::new();
            for (name, prefix, access) in &names {
                let suffix = if *prefix { "_prefix" } else { "" };
                text += &format!("service{suffix} {name:?} {{ policy = {:?} }}\n", words[usize::from(*access)]);
            }
            let read = parse(&text).unwrap();
            prop_assert_eq!(read.len(), names.len());
            for (rule, (name, prefix, access)) in read.iter().zip(&names) {
                let segment = if *prefix { Segment::Prefix(name.clone()) } else { Segment::Exact(name.clone()) };
                prop_assert_eq!(&rule.segment, &segment);
                prop_assert_eq!(rule.access, Access::parse(words[usize::from(*access)]).unwrap());
            }
        }
    }
}
