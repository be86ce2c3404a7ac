//! Prepared query templates: one definition for all names that begin with its own.
//!
//! Consul's interpolation: in the texts of the definition, `${name.full}` is the name that was asked for, `${name.prefix}` the
//! template's own, `${name.suffix}` what comes behind it, `${match(n)}` what group n of the regular expression found in
//! the whole name (0: all of it; empty where it found nothing), `${agent.segment}` nothing, since there are no network
//! segments here. `$${` stands for `${`. Consul evaluates a whole expression language there; arithmetic and conditions of it
//! are not served, and are refused when the template is made.
//!
//! Expressions of the `regex` crate take time in proportion to the name, whatever they are.

use std::fmt;

use regex::{Captures, Regex, RegexBuilder};

use super::PreparedQuery;

/// Octets that one text may become: an instance has no name, tag or value that is longer.
const TEXT_OCTETS_MAX: usize = 1024;

/// A template that was found good.
pub struct Template {
    query: PreparedQuery,
    regex: Option<Regex>,
    /// For each text of the definition, in their order.
    texts: Vec<Vec<Piece>>,
}

/// Why a definition is no template, in Consul's words where it has them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("Bad format '{text}' in Service{at}: {why}")]
    Format { at: String, text: String, why: String },
    #[error("Bad Regexp: {0}")]
    Regexp(String),
}

/// A part of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Plain(String),
    Full,
    Prefix,
    Suffix,
    Match(i64),
    Segment,
}

impl Template {
    /// Reads a definition that has [`PreparedQuery::template`]. The regular expression may take `regex_octets_max` of memory
    /// when it is compiled.
    pub fn compile(query: &PreparedQuery, regex_octets_max: usize) -> Result<Self, TemplateError> {
        let mut query = query.clone();
        let mut texts = Vec::new();
        for (at, text) in query.service.texts_mut() {
            let pieces = pieces(text);
            texts.push(pieces.map_err(|why| TemplateError::Format { at, text: text.clone(), why })?);
        }
        let regexp = query.template.as_ref().map_or("", |terms| terms.regexp.as_str());
        let compiled = || {
            let built = RegexBuilder::new(regexp).size_limit(regex_octets_max).build();
            built.map_err(|e| TemplateError::Regexp(e.to_string()))
        };
        let regex = (!regexp.is_empty()).then(compiled).transpose()?;
        Ok(Self { query, regex, texts })
    }

    /// The query that a name asks for; it need not begin with the template's.
    pub fn render(&self, name: &str) -> PreparedQuery {
        let found = self.regex.as_ref().and_then(|regex| regex.captures(name));
        let prefix = self.query.name.as_str();
        let folded = name.get(..prefix.len()).filter(|front| front.eq_ignore_ascii_case(prefix));
        let names = Names {
            full: name,
            prefix,
            suffix: folded.map_or(name, |front| &name[front.len()..]),
            found: found.as_ref(),
        };
        let mut query = self.query.clone();
        for ((_, text), pieces) in query.service.texts_mut().zip(&self.texts) {
            *text = names.fill(pieces);
        }
        if query.template.as_ref().is_some_and(|terms| terms.remove_empty_tags) {
            query.service.tags.retain(|tag| !tag.is_empty());
        }
        query
    }
}

impl fmt::Debug for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Template").field(&self.query).finish()
    }
}

/// What a text is filled from.
struct Names<'a> {
    full: &'a str,
    prefix: &'a str,
    suffix: &'a str,
    found: Option<&'a Captures<'a>>,
}

impl Names<'_> {
    fn fill(&self, pieces: &[Piece]) -> String {
        let mut text = String::new();
        for piece in pieces {
            let part = match piece {
                Piece::Plain(plain) => plain,
                Piece::Full => self.full,
                Piece::Prefix => self.prefix,
                Piece::Suffix => self.suffix,
                Piece::Match(group) => self.group(*group),
                Piece::Segment => "",
            };
            // What is longer is nobody's name. Cut within a character, it would be no text.
            if text.len() + part.len() <= TEXT_OCTETS_MAX {
                text.push_str(part);
            }
        }
        text
    }

    fn group(&self, group: i64) -> &str {
        let group = usize::try_from(group).ok();
        let found = group.and_then(|group| self.found?.get(group));
        found.map_or("", |found| found.as_str())
    }
}

/// Takes a text apart.
fn pieces(text: &str) -> Result<Vec<Piece>, String> {
    let (mut pieces, mut plain, mut rest) = (Vec::new(), String::new(), text);
    while let Some(at) = rest.find('$') {
        plain.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some(after) = rest.strip_prefix("$${") {
            plain.push_str("${");
            rest = after;
        } else if let Some(inside) = rest.strip_prefix("${") {
            let (expression, after) = inside.split_once('}').ok_or("a } is missing")?;
            if !plain.is_empty() {
                pieces.push(Piece::Plain(std::mem::take(&mut plain)));
            }
            pieces.push(piece(expression.trim())?);
            rest = after;
        } else {
            plain.push('$');
            rest = &rest[1..];
        }
    }
    plain.push_str(rest);
    if !plain.is_empty() {
        pieces.push(Piece::Plain(plain));
    }
    Ok(pieces)
}

fn piece(expression: &str) -> Result<Piece, String> {
    let group = || {
        let argument = expression.strip_prefix("match")?.trim_start().strip_prefix('(')?.strip_suffix(')')?;
        argument.trim().parse().ok().map(Piece::Match)
    };
    match expression {
        "name.full" => Some(Piece::Full),
        "name.prefix" => Some(Piece::Prefix),
        "name.suffix" => Some(Piece::Suffix),
        "agent.segment" => Some(Piece::Segment),
        _ => group(),
    }
    .ok_or_else(|| {
        format!(
            "${{{expression}}} is none of ${{name.full}}, ${{name.prefix}}, ${{name.suffix}}, ${{match(N)}}, ${{agent.segment}}"
        )
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::query::{Terms, Wanted};
    use super::*;

    fn query(name: &str, regexp: &str, service: &str, tags: &[&str]) -> PreparedQuery {
        PreparedQuery {
            id: Uuid::nil(),
            name: name.into(),
            token: String::new(),
            template: Some(Terms { regexp: regexp.into(), remove_empty_tags: true }),
            service: Wanted {
                service: service.into(),
                tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
                ..Wanted::default()
            },
            ttl: String::new(),
        }
    }

    fn rendered(query: &PreparedQuery, name: &str) -> Wanted {
        Template::compile(query, 1 << 20).unwrap().render(name).service
    }

    #[test]
    fn every_variable_is_filled_in() {
        let geo = query("geo-db", "^geo-db-(.*?)-([^\\-]+?)$", "mysql-${match(1)}", &["${match(2)}"]);
        let found = rendered(&geo, "geo-db-customer-master");
        assert_eq!((found.service.as_str(), &found.tags[..]), ("mysql-customer", &["master".to_owned()][..]));
        let none = rendered(&geo, "geo-db");
        assert_eq!((none.service.as_str(), none.tags.len()), ("mysql-", 0));
        for (text, expected) in [
            ("${name.full}", "Geo-x"),
            ("${ name.prefix }${name.suffix}", "geo-x"),
            ("${match(0)}|${match( 1 )}|${match(-1)}|${match(9)}", "Geo-x|x||"),
            ("a$${name.full}b$c$", "a${name.full}b$c$"),
            ("${agent.segment}s", "s"),
            ("${match(1)}", "x"),
        ] {
            assert_eq!(rendered(&query("geo-", "^.eo-(.)$", text, &[]), "Geo-x").service, expected, "{text}");
        }
    }

    #[test]
    fn every_text_of_the_definition_is_filled_in() {
        let mut all = query("p-", "", "${name.suffix}", &["!${name.suffix}", ""]);
        all.service.near = "${name.suffix}".into();
        all.service.ignore_checks = vec!["c-${name.suffix}".into()];
        all.service.node_meta = [("k".into(), "${name.full}".into())].into();
        all.service.service_meta = [("m".into(), "${name.prefix}".into())].into();
        let found = rendered(&all, "p-x");
        assert_eq!((found.near.as_str(), found.ignore_checks[0].as_str()), ("x", "c-x"));
        assert_eq!((found.node_meta["k"].as_str(), found.service_meta["m"].as_str()), ("p-x", "p-"));
        assert_eq!(found.tags, ["!x"]);
    }

    #[test]
    fn what_is_no_template_is_refused_in_consuls_words() {
        for (service, text) in [
            ("${nope}", "Bad format '${nope}' in Service.Service: ${nope} is none of"),
            ("${match(x)}", "Bad format '${match(x)}' in Service.Service: "),
            ("${name.full", "Bad format '${name.full' in Service.Service: a } is missing"),
            ("${1 + 1}", "Bad format '${1 + 1}' in Service.Service: "),
        ] {
            let error = Template::compile(&query("p", "", service, &[]), 1 << 20).unwrap_err().to_string();
            assert!(error.starts_with(text), "{error}");
        }
        let tag = Template::compile(&query("p", "", "s", &["a", "${}"]), 1 << 20).unwrap_err().to_string();
        assert!(tag.starts_with("Bad format '${}' in Service.Tags[1]: "), "{tag}");
        let regexp = |regexp: &str, max| Template::compile(&query("p", regexp, "s", &[]), max).unwrap_err();
        assert!(regexp("(", 1 << 20).to_string().starts_with("Bad Regexp: "));
        assert!(regexp(r"\w{1000}", 1 << 14).to_string().contains("size limit"));
    }

    proptest! {
        /// Nothing that a client sends makes it panic, and what it makes is never longer than a name can be.
        #[test]
        fn any_text_and_any_name(
            prefix in "[a-z.-]{0,4}",
            regexp in "[()^$.*+?a-c\\[\\]|{}0-9-]{0,8}",
            text in "([$]{0,3}[{]?(name.full|name.suffix|match\\(-?[0-9]{1,20}\\)|[^}]{0,3})[}]?){0,4}",
            name in "\\PC{0,40}",
        ) {
            if let Ok(template) = Template::compile(&query(&prefix, &regexp, &text, &[&text]), 1 << 20) {
                let found = template.render(&name);
                prop_assert!(found.service.service.len() <= TEXT_OCTETS_MAX);
                prop_assert!(found.service.tags.len() <= 1);
            }
        }

        /// A text without `$` stays as it is; prefix and suffix make the name.
        #[test]
        fn plain_texts_stay(text in "[^$]{0,30}", prefix in "[a-z]{0,5}", suffix in "[a-z.]{0,9}") {
            let name = format!("{prefix}{suffix}");
            prop_assert_eq!(&rendered(&query(&prefix, "", &text, &[]), &name).service, &text);
            let both = query(&prefix, "", "${name.prefix}${name.suffix}", &[]);
            prop_assert_eq!(rendered(&both, &name).service, name);
        }
    }
}
