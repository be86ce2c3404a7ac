//! Whether a thing matches.

use super::check::{Checked, Comparison, Rule};

/// A thing that can be filtered.
pub trait Root {
    /// Hands `test` what a selector leads to, which fits the [`Fields`](super::Fields) that the filter was made for: one value, or
    /// each of several where a list stands on the way, until it says true. Whether it did.
    fn find(&self, path: &[String], test: Test<'_>) -> bool;
}

/// What is asked of a value.
pub type Test<'t> = &'t mut dyn FnMut(Found<'_, '_>) -> bool;

/// A value.
pub enum Found<'f, 'a> {
    Text(&'a str),
    Integer(i64),
    Bool(bool),
    /// Members of a list, or keys of a map.
    Among(&'f mut dyn Iterator<Item = &'a str>),
    /// A map on the way has no such key.
    Missing,
}

pub(super) fn holds(expression: &Checked, root: &impl Root) -> bool {
    match expression {
        Checked::Any(parts) => parts.iter().any(|part| holds(part, root)),
        Checked::All(parts) => parts.iter().all(|part| holds(part, root)),
        Checked::Not(part) => !holds(part, root),
        Checked::Match(of) => root.find(&of.path, &mut |found| of.test(found)),
    }
}

impl Comparison {
    fn test(&self, found: Found<'_, '_>) -> bool {
        let plain = match (&self.rule, found) {
            // What is not there is equal to nothing, holds nothing and is empty; as in Consul, `matches` is true of it.
            (Rule::Matches(_), Found::Missing) => return true,
            (Rule::Empty, Found::Missing) => true,
            (Rule::IsText(value), Found::Text(own)) => own == value,
            (Rule::IsInteger(value), Found::Integer(own)) => own == *value,
            (Rule::IsBool(value), Found::Bool(own)) => own == *value,
            (Rule::Contains(value), Found::Text(own)) => own.contains(value.as_str()),
            (Rule::Contains(value), Found::Among(mut members)) => {
                Iterator::any(&mut members, |own| own == value)
            }
            (Rule::Empty, Found::Among(members)) => members.next().is_none(),
            (Rule::Matches(regex), Found::Text(own)) => regex.is_match(own),
            _ => false,
        };
        plain != self.negated
    }
}

/// A text under a selector that ends.
pub fn text(own: &str, test: Test<'_>) -> bool {
    test(Found::Text(own))
}

/// A number under a selector that ends.
pub fn integer(own: impl Into<i64>, test: Test<'_>) -> bool {
    test(Found::Integer(own.into()))
}

/// A truth value under a selector that ends.
pub fn flag(own: bool, test: Test<'_>) -> bool {
    test(Found::Bool(own))
}

/// A list of texts under a selector that ends.
pub fn among<'a>(mut members: impl Iterator<Item = &'a str>, test: Test<'_>) -> bool {
    test(Found::Among(&mut members))
}

/// A map of texts: the whole of it where the selector ends, else the value under the next name.
pub fn pairs<'a>(
    mut pairs: impl Iterator<Item = (&'a str, &'a str)>,
    rest: &[String],
    test: Test<'_>,
) -> bool {
    match rest.first() {
        None => test(Found::Among(&mut pairs.map(|(key, _)| key))),
        Some(key) => match pairs.find(|(own, _)| *own == key.as_str()) {
            Some((_, value)) => test(Found::Text(value)),
            None => test(Found::Missing),
        },
    }
}

/// A list of things: the whole of it where the selector ends, else each of them in turn.
pub fn list<R: Root>(items: impl Iterator<Item = R>, rest: &[String], test: Test<'_>) -> bool {
    if rest.is_empty() {
        return test(Found::Among(&mut items.map(|_| "")));
    }
    let mut items = items;
    items.any(|item| item.find(rest, test))
}
