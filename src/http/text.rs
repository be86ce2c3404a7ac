//! Texts that clients name and people read: in a terminal, a log, a page. A control character in one could steer what shows it, so
//! it is refused; names and ids refuse theirs where they are parsed (`model::name`). What a check says (`Output`) is taken as it is: programs
//! colour what they print, and a report must not be lost for it. Who shows one to people makes it harmless.

use super::error::Error;
use crate::model::{Acl, Check, Instance, Locality, Node};

/// A text of one line.
pub(super) fn line(what: &str, text: &str) -> Result<(), Error> {
    refuse(what, text.chars().find(|c| c.is_control()), "")
}

/// A text of several lines, such as what a program printed.
pub(super) fn prose(what: &str, text: &str) -> Result<(), Error> {
    let found = text.chars().find(|c| c.is_control() && !['\n', '\r', '\t'].contains(c));
    refuse(what, found, "; of those it may have ends of lines and tabs")
}

fn refuse(what: &str, found: Option<char>, but: &str) -> Result<(), Error> {
    match found {
        None => Ok(()),
        Some(c) => {
            Err(Error::bad(format!("{what} contains the control character U+{:04X}{but}", u32::from(c))))
        }
    }
}

pub(super) fn of_check(check: &Check) -> Result<(), Error> {
    line("Invalid check: Name", &check.name)?;
    prose("Invalid check: Notes", &check.notes)
}

pub(super) fn of_instance(instance: &Instance) -> Result<(), Error> {
    let extras = &instance.extras;
    line("Invalid service: Kind", &extras.kind)?;
    line("Invalid service: SocketPath", &extras.socket_path)?;
    extras
        .tagged_addresses
        .keys()
        .try_for_each(|tag| line("Invalid service: a key of TaggedAddresses", tag))?;
    of_locality("Invalid service: Locality", extras.locality.as_ref())
}

pub(super) fn of_node(node: &Node) -> Result<(), Error> {
    node.tagged_addresses.keys().try_for_each(|tag| line("Invalid node: a key of TaggedAddresses", tag))?;
    of_locality("Invalid node: Locality", node.locality.as_ref())
}

fn of_locality(what: &str, locality: Option<&Locality>) -> Result<(), Error> {
    let parts = locality.into_iter().flat_map(|locality| [&locality.region, &locality.zone]);
    parts.into_iter().try_for_each(|part| line(what, part))
}

pub(super) fn of_acl(record: &Acl) -> Result<(), Error> {
    let description = match record {
        Acl::Token(token) => &token.description,
        Acl::Policy(policy) => &policy.description,
        Acl::Role(role) => &role.description,
        Acl::Method(method) => &method.description,
        Acl::Rule(rule) => &rule.description,
        _ => return Ok(()),
    };
    prose("Description", description)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_refused_by_name() {
        assert!(line("Name", "größer ✓ \u{202f}").is_ok() && prose("Notes", "a\r\n\tb").is_ok());
        for text in ["\u{1b}[2J", "a\0", "\u{7f}", "\u{9b}31m", "\u{8}"] {
            assert!(line("Name", text).is_err() && prose("Notes", text).is_err(), "{text:?}");
        }
        for text in ["a\nb", "\t", "\r"] {
            assert!(line("Name", text).is_err(), "{text:?}");
        }
        let said = prose("Notes", "\u{1b}[0m").unwrap_err().text;
        assert_eq!(
            said,
            "Notes contains the control character U+001B; of those it may have ends of lines and tabs"
        );
    }
}
