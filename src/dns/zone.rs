//! Static zones: records from master files, for names that are not services.
//!
//! [`Zones::load`] reads all files into one immutable value, or says all that is wrong with them and changes nothing:
//! who reloads keeps the old value then. `token` and `read` turn text into records, `rdata` their data into
//! octets, `check` applies the rules and builds the `layout`, and `lookup` answers from it.
//!
//! A zone inside another static zone is served by itself: the closest one answers, and the parent's delegation matters
//! in the parent only. A zone at, above or below a live domain is an error, because one of the two would be hidden.

mod check;
mod fault;
mod folder;
mod key;
mod layout;
mod lookup;
mod rdata;
mod read;
mod svcb;
mod token;
mod types;

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use hickory_proto::rr::{Name, RecordType};

pub use fault::ZoneError;
pub use layout::Zone;
pub use lookup::Lookup;

use fault::Faults;

/// A zone that the configuration names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    pub name: Name,
    /// Its master file; `$INCLUDE` reaches files in the same folder and below it.
    pub file: PathBuf,
}

/// How much one zone may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Of text, in all its files together.
    pub octets: usize,
    pub records: usize,
    /// Files that it includes, and itself.
    pub files: usize,
    /// How deep `$INCLUDE` may be nested.
    pub depth: usize,
    /// Of text in one entry, from its first line to the closing parenthesis.
    pub entry_octets: usize,
    /// How many errors and warnings are told.
    pub faults: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            octets: 512 << 20,
            records: 2_000_000,
            files: 1000,
            depth: 8,
            // The longest record data, written octet by octet as `\DDD`, and room for its comments.
            entry_octets: 512 << 10,
            faults: 20,
        }
    }
}

/// All static zones. Immutable.
#[derive(Default)]
pub struct Zones {
    /// By the key of their name under the root.
    zones: HashMap<Vec<u8>, Zone>,
    /// The most octets that a key in `zones` has.
    longest: usize,
    warnings: Vec<ZoneError>,
}

impl Zones {
    /// Reads all zones within the default limits; blocks while it does. On errors nothing but the errors comes back: all
    /// of them, up to a limit for each zone.
    pub fn load(sources: &[Source], live_domains: &[Name]) -> Result<Self, Vec<ZoneError>> {
        Self::load_within(sources, live_domains, &Limits::default())
    }

    /// [`load`](Self::load) with other limits.
    pub fn load_within(
        sources: &[Source],
        live_domains: &[Name],
        limits: &Limits,
    ) -> Result<Self, Vec<ZoneError>> {
        let (mut zones, mut errors) = (Self::default(), Vec::new());
        for (number, source) in sources.iter().enumerate() {
            if let Some(reason) = conflict(source, &sources[..number], live_domains) {
                errors.push(ZoneError { file: source.file.clone(), line: None, reason });
                continue;
            }
            match load_one(source, limits) {
                Ok((zone, warnings)) => {
                    zones.warnings.extend(warnings);
                    zones.insert(zone);
                }
                Err(found) => errors.extend(found),
            }
        }
        if errors.is_empty() { Ok(zones) } else { Err(errors) }
    }

    fn insert(&mut self, zone: Zone) {
        let key = key::of_name(zone.origin(), 0);
        self.longest = self.longest.max(key.len());
        self.zones.insert(key, zone);
    }

    /// The zone that answers for a name: the closest one at or above it. DS belongs to the parent
    /// (RFC 4035 section 3.1.4.1), if that is here and delegates the name.
    pub fn find(&self, name: &Name, kind: RecordType) -> Option<&Zone> {
        if self.zones.is_empty() {
            return None;
        }
        let key = key::of_name(name, 0);
        let (mut closest, mut parent) = (None, None);
        for (_, zone) in self.at_or_above(&key) {
            parent = closest.replace(zone);
        }
        let child = kind == RecordType::DS && closest.is_some_and(|zone| zone.origin() == name);
        parent.filter(|parent: &&Zone| child && parent.delegates(name)).or(closest)
    }

    /// The zones at or above a name's key, the closest last, and how much of the key is theirs.
    fn at_or_above<'z>(&'z self, key: &[u8]) -> impl Iterator<Item = (usize, &'z Zone)> {
        let lengths = key::beginnings(key).take_while(|length| *length <= self.longest);
        lengths.filter_map(|length| Some((length, self.zones.get(&key[..length])?)))
    }

    /// The TTL and the record data of an RRset that is answered as it is, without a look at any other name; the labels of the
    /// name from the left. None for all that needs [`find`](Self::find) and a lookup. `key` is room to work in.
    pub(super) fn plain<'z, 'l>(
        &'z self,
        labels: impl Iterator<Item = &'l [u8]>,
        kind: RecordType,
        key: &mut Vec<u8>,
    ) -> Option<(u32, impl Iterator<Item = &'z [u8]>)> {
        if self.zones.is_empty() {
            return None;
        }
        let mut reversed = [&[][..]; 128];
        let mut count = 0;
        for label in labels {
            *reversed.get_mut(count)? = label;
            count += 1;
        }
        key.clear();
        reversed[..count].iter().rev().for_each(|label| key::push(key, label));
        let (length, zone) = self.at_or_above(key).last()?;
        let set = zone.plain(&key[length..], kind)?;
        Some((set.ttl, zone.data(set)))
    }

    /// What is odd in the zones; worth a log line each.
    pub fn warnings(&self) -> &[ZoneError] {
        &self.warnings
    }

    pub fn iter(&self) -> impl Iterator<Item = &Zone> {
        self.zones.values()
    }
}

fn conflict(source: &Source, before: &[Source], live_domains: &[Name]) -> Option<String> {
    let name = source.name.to_ascii();
    if let Some(live) =
        live_domains.iter().find(|live| live.zone_of(&source.name) || source.name.zone_of(live))
    {
        let how = match (live.zone_of(&source.name), source.name.zone_of(live)) {
            (true, true) => "is",
            (true, false) => "is below",
            _ => "is above",
        };
        return Some(format!(
            "zone {name} {how} the live domain {}; give one of them another name",
            live.to_ascii()
        ));
    }
    let other = before.iter().find(|other| other.name == source.name)?;
    Some(format!("zone {name} is already read from {}", other.file.display()))
}

fn load_one(source: &Source, limits: &Limits) -> Result<(Zone, Vec<ZoneError>), Vec<ZoneError>> {
    let fail = |reason| vec![ZoneError { file: source.file.clone(), line: None, reason }];
    let text = folder::read(&source.file, limits.octets).map_err(fail)?;
    let folder = source.file.parent().unwrap_or(Path::new(""));
    let open = |parts: &[&str], limit| folder::read_below(folder, parts, limit);
    parse(source, &text, &open, limits)
}

/// A zone from the text of its file. Without I/O but for what `open` does.
fn parse(
    source: &Source,
    text: &[u8],
    open: read::Open<'_>,
    limits: &Limits,
) -> Result<(Zone, Vec<ZoneError>), Vec<ZoneError>> {
    let mut faults = Faults::new(source.file.clone(), limits.faults);
    let name = source.file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let records = read::read(&source.name, &name, text, open, limits, &mut faults);
    let zone = check::build(&source.name, records, &mut faults);
    faults.finish().map(|warnings| (zone, warnings))
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap as Files;
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn source(name: &str, file: &str) -> Source {
        Source { name: Name::from_ascii(name).unwrap(), file: file.into() }
    }

    /// `z.test` from a text, with the files that it may include.
    fn parsed(
        text: &[u8],
        files: &Files<&str, &str>,
        limits: &Limits,
    ) -> Result<(Zone, Vec<ZoneError>), Vec<ZoneError>> {
        let open = |parts: &[&str], limit: usize| {
            let text = files.get(parts.join("/").as_str()).ok_or("no such file")?;
            (text.len() <= limit).then(|| text.as_bytes().to_vec()).ok_or_else(|| "too large".to_owned())
        };
        parse(&source("z.test.", "f/z"), text, &open, limits)
    }

    /// `z.test` from a text that is valid.
    pub(super) fn zone(text: &str) -> Zone {
        match parsed(text.as_bytes(), &Files::new(), &Limits::default()) {
            Ok((zone, _)) => zone,
            Err(errors) => panic!("{errors:?} in\n{text}"),
        }
    }

    const APEX: &str = "@ 1h SOA ns root 1 2 3 4 5\n@ 1h NS ns\n";

    fn lines(errors: &[ZoneError]) -> Vec<String> {
        errors.iter().map(ToString::to_string).collect()
    }

    /// Every record of a zone, as `owner ttl type`.
    fn records(zone: &Zone) -> Vec<String> {
        let nodes = zone.nodes.iter().enumerate();
        let records = nodes.flat_map(|(number, node)| {
            let owner = key::text(node.key.of(&zone.octets), zone.origin());
            let sets = zone.sets(number as u32).iter();
            sets.flat_map(move |set| {
                let text = format!("{owner} {} {}", set.ttl, types::kind_text(set.kind));
                std::iter::repeat_n(text, usize::from(set.count))
            })
        });
        records.filter(|text| !text.ends_with(" SOA") && !text.ends_with(" NS")).collect()
    }

    #[test]
    fn owners_ttls_and_classes_carry_over() {
        for (text, expected) in [
            (
                "a 60 IN A 192.0.2.1\n  IN 61 TXT x\n\tMX 1 b\n",
                &["a.z.test. 60 A", "a.z.test. 61 MX", "a.z.test. 61 TXT"][..],
            ),
            (
                "$TTL 1h30m\na A 192.0.2.1\nb 5 A 192.0.2.1\nc A 192.0.2.1\n",
                &["a.z.test. 5400 A", "b.z.test. 5 A", "c.z.test. 5400 A"],
            ),
            (
                "$ORIGIN b\na A 192.0.2.1\n@ A 192.0.2.1\n$ORIGIN c.z.test.\nA a 192.0.2.1\n",
                &["b.z.test. 3600 A", "a.b.z.test. 3600 A", "a.c.z.test. 3600 A"],
            ),
            ("a.Z.Test. class1 type1 192.0.2.1\r\n", &["a.z.test. 3600 A"]),
            ("a\\.b A 192.0.2.1\na\\098 A 192.0.2.1\n", &["a\\.b.z.test. 3600 A", "ab.z.test. 3600 A"]),
            ("a ( A\n192.0.2.1 ) ; b\n", &["a.z.test. 3600 A"]),
            ("a A 192.0.2.1\na A 192.0.2.1\nA A 192.0.2.2\n", &["a.z.test. 3600 A", "a.z.test. 3600 A"]),
            (
                "a 9 A 192.0.2.1\nb A 192.0.2.1\na 5 A 192.0.2.2\n",
                &["a.z.test. 5 A", "a.z.test. 5 A", "b.z.test. 9 A"],
            ),
            ("in A 192.0.2.1\n", &["in.z.test. 3600 A"]),
        ] {
            let text = text.replace("A a 192", "a A 192");
            assert_eq!(records(&zone(&format!("{APEX}{text}"))), expected, "{text}");
        }
        let short = zone("@ SOA ns root 1 2 3 4 77\n@ NS ns\na A 192.0.2.1\n");
        assert_eq!(records(&short), ["a.z.test. 77 A"], "MINIMUM where no TTL is said");
    }

    #[test]
    fn each_mistake_is_named_with_its_line() {
        for (text, line, reason) in [
            ("a A 192.0.2", 3, "A: `192.0.2` is not an IPv4 address"),
            ("\n\na NOPE x", 5, "`NOPE` is not a record type"),
            ("a 60 IN", 3, "no record type"),
            ("a CH A 192.0.2.1", 3, "only IN is served"),
            ("a CLASS3 A 192.0.2.1", 3, "only IN is served"),
            ("a ANY x", 3, "type of questions"),
            ("a TYPE255 \\# 0", 3, "type of questions"),
            ("a OPT \\# 0", 3, "type of questions"),
            ("a 2147483648 A 192.0.2.1", 3, "more than 2147483647"),
            ("a 99999999999999999999w A 192.0.2.1", 3, "more than 2147483647"),
            ("a 1x A 192.0.2.1", 3, "TTL: `1x` is not a period"),
            ("b.other. A 192.0.2.1", 3, "outside the zone"),
            ("az.test. A 192.0.2.1", 3, "outside the zone"),
            ("a..b A 192.0.2.1", 3, "a label is empty"),
            ("\u{e4} A 192.0.2.1", 3, "xn--"),
            ("\"a\" A 192.0.2.1", 3, "not a name"),
            ("a CNAME b\na A 192.0.2.1", 3, "a.z.test. has a CNAME and A"),
            ("a CNAME b\na CNAME c", 4, "second CNAME of a.z.test."),
            ("a DNAME b\na DNAME c", 4, "second DNAME of a.z.test."),
            ("a DNAME b\na CNAME c", 4, "has a CNAME and DNAME"),
            ("@ CNAME c", 3, "has a CNAME and"),
            ("@ SOA a b 1 2 3 4 5", 3, "second SOA"),
            ("a SOA a b 1 2 3 4 5", 3, "only z.test. itself"),
            ("$GENERATE 1-2 a A 192.0.2.$", 3, "only $ORIGIN, $TTL and $INCLUDE"),
            ("$TTL", 3, "$TTL needs"),
            ("$ORIGIN a b", 3, "$ORIGIN needs"),
            ("$INCLUDE", 3, "$INCLUDE needs"),
            ("$INCLUDE /etc/passwd", 3, "only files in the zone file's folder"),
            ("$INCLUDE ../x", 3, "only files in the zone file's folder"),
            ("$INCLUDE a/../../x", 3, "only files in the zone file's folder"),
            ("$INCLUDE .", 3, "only files in the zone file's folder"),
            ("$INCLUDE none", 3, "$INCLUDE none: no such file"),
            ("$INCLUDE z", 3, "circle: z -> z"),
            ("a TXT \"x", 3, "not closed"),
            ("a A ( 192.0.2.1", 3, "never closed"),
        ] {
            let all = format!("{APEX}{text}\nok A 192.0.2.1\n");
            let errors = lines(&parsed(all.as_bytes(), &Files::new(), &Limits::default()).err().unwrap());
            let begin = format!("f/z:{line}: ");
            assert!(errors.len() == 1 && errors[0].starts_with(&begin), "{text}: {errors:?}");
            assert!(errors[0].contains(reason), "{text}: {errors:?}");
        }
        for (text, expected) in [
            ("", &["f/z: no SOA record of z.test.", "f/z: no NS record of z.test."][..]),
            ("@ 1 SOA a b 1 2 3 4 5", &["f/z: no NS record of z.test."]),
            (" A 192.0.2.1", &["f/z:1: no owner stands before this line; write one"]),
            ("a A 192.0.2.1", &["f/z:1: no TTL; write one, or `$TTL 1h` at the top of the file"]),
        ] {
            let errors = lines(&parsed(text.as_bytes(), &Files::new(), &Limits::default()).err().unwrap());
            assert_eq!(errors[..expected.len()], *expected, "{text}");
        }
    }

    #[test]
    fn all_mistakes_are_told_up_to_a_bound() {
        let text = format!("{APEX}a A x\n  A y\nb..c A z\n  A 192.0.2.1\nd NOPE\n");
        let errors = parsed(text.as_bytes(), &Files::new(), &Limits::default()).err().unwrap();
        let found: Vec<_> = errors.iter().map(|error| error.line).collect();
        assert_eq!(found, [Some(3), Some(4), Some(5), Some(7)], "a bad owner is told once");
        let errors =
            parsed("a A x\n".repeat(100).as_bytes(), &Files::new(), &Limits::default()).err().unwrap();
        assert_eq!(errors.len(), 21);
        assert!(errors[20].reason.contains("only the first 20"));
    }

    #[test]
    fn odd_zones_load_with_warnings() {
        for (text, line, reason) in [
            ("a 5 A 192.0.2.1\na 6 A 192.0.2.2", 4, "several TTLs; the smallest, 5"),
            ("a A 192.0.2.1\na A 192.0.2.1", 4, "a second time"),
            ("d DNAME e\nx.d A 192.0.2.1", 4, "hidden by the DNAME at d.z.test."),
            ("d NS e\nx.d TXT x", 4, "hidden by the delegation at d.z.test."),
            ("d NS e\nd DNAME x", 4, "hidden by the delegation"),
            ("d DS 1 8 2 00", 3, "not delegated"),
        ] {
            let (_, warnings) =
                parsed(format!("{APEX}{text}\n").as_bytes(), &Files::new(), &Limits::default()).unwrap();
            let warnings = lines(&warnings);
            let begin = format!("f/z:{line}: ");
            assert!(warnings.len() == 1 && warnings[0].starts_with(&begin), "{text}: {warnings:?}");
            assert!(warnings[0].contains(reason), "{text}: {warnings:?}");
        }
        for text in
            ["d NS ns.d\nns.d A 192.0.2.1\nns.d AAAA ::1", "@ DNAME x.elsewhere.", "a.*.b A 192.0.2.1"]
        {
            let (_, warnings) =
                parsed(format!("{APEX}{text}\n").as_bytes(), &Files::new(), &Limits::default()).unwrap();
            assert_eq!(warnings, [], "{text}");
        }
    }

    #[test]
    fn included_files_have_their_own_origin_owner_and_ttl() {
        let files = Files::from([
            ("sub/a", "$TTL 9\n$ORIGIN deep\nx A 192.0.2.1\n$INCLUDE b\n"),
            ("b", "y A 192.0.2.1\n"),
        ]);
        let text = format!("{APEX}o A 192.0.2.1\n$INCLUDE \"sub/a\" inner\n TXT x\n$INCLUDE ./b ; again\n");
        let (zone, _) = parsed(text.as_bytes(), &files, &Limits::default()).unwrap();
        let expected = ["o.z.test. 3600 A", "o.z.test. 3600 TXT", "y.z.test. 3600 A"];
        let found = records(&zone);
        assert!(expected.iter().all(|record| found.iter().any(|other| other == record)), "{found:?}");
        assert!(found.contains(&"x.deep.inner.z.test. 9 A".to_owned()), "{found:?}");
    }

    #[test]
    fn mistakes_in_included_files_name_those() {
        let files = Files::from([("a", "x A nope\n"), ("c1", "$INCLUDE c2\n"), ("c2", "$INCLUDE c1\n")]);
        for (text, expected) in [
            ("$INCLUDE a\n", "f/a:1: A: `nope` is not an IPv4 address"),
            ("$INCLUDE c1\n", "f/c2:1: $INCLUDE goes in a circle: z -> c1 -> c2 -> c1"),
        ] {
            let text = format!("{APEX}{text}");
            let errors = lines(&parsed(text.as_bytes(), &files, &Limits::default()).err().unwrap());
            assert_eq!(errors, [expected]);
        }
    }

    #[test]
    fn every_limit_is_an_error_that_names_it() {
        let limits = Limits { octets: 400, records: 5, files: 4, depth: 2, entry_octets: 100, faults: 20 };
        let files = Files::from([
            ("1", "$INCLUDE 2\n"),
            ("2", "$INCLUDE 3\n"),
            ("3", ""),
            ("large", std::str::from_utf8(&[b';'; 350]).unwrap()),
        ]);
        for (text, reason) in [
            ("a TXT a\n".repeat(4), "more than 5 records"),
            ("$INCLUDE 3\n".repeat(4), "more than 4 files"),
            ("$INCLUDE 1\n".to_owned(), "nested more than 2 deep"),
            ("$INCLUDE large\n".to_owned(), "too large"),
            (format!("a TXT {}\n", "a ".repeat(60)), "more than 100 octets"),
            (format!("a TXT \"{}\"\n", "a".repeat(120)), "more than 100 octets"),
        ] {
            let text = format!("{APEX}{text}");
            let errors = lines(&parsed(text.as_bytes(), &files, &limits).err().unwrap());
            assert!(errors.len() == 1 && errors[0].contains(reason), "{text}: {errors:?}");
        }
    }

    fn load(folder: &Path, zones: &[(&str, &str)], live: &[&str]) -> Result<Zones, Vec<String>> {
        let sources: Vec<Source> = zones
            .iter()
            .enumerate()
            .map(|(number, (name, text))| {
                let file = folder.join(number.to_string());
                fs::write(&file, text).unwrap();
                Source { name: Name::from_ascii(name).unwrap(), file }
            })
            .collect();
        let live: Vec<Name> = live.iter().map(|name| Name::from_ascii(name).unwrap()).collect();
        Zones::load(&sources, &live).map_err(|errors| lines(&errors))
    }

    #[test]
    fn the_closest_zone_answers_and_ds_belongs_to_the_parent() {
        let folder = tempfile::tempdir().unwrap();
        let child = ("c.z.test.", APEX);
        let zones = [("z.test.", &*format!("{APEX}c 1h NS ns.c\n")), child, ("y.c.z.test.", APEX)];
        let zones = load(folder.path(), &zones, &["internal."]).unwrap();
        let find = |name: &str, kind| {
            let found = zones.find(&Name::from_ascii(name).unwrap(), kind);
            found.map(|zone| zone.origin().to_ascii())
        };
        for (name, kind, expected) in [
            ("z.test.", RecordType::A, Some("z.test.")),
            ("x.Z.test.", RecordType::A, Some("z.test.")),
            ("c.z.test.", RecordType::A, Some("c.z.test.")),
            ("c.z.test.", RecordType::DS, Some("z.test.")),
            ("x.c.z.test.", RecordType::DS, Some("c.z.test.")),
            // Its parent does not delegate it.
            ("y.c.z.test.", RecordType::DS, Some("y.c.z.test.")),
            ("z.test.", RecordType::DS, Some("z.test.")),
            ("test.", RecordType::A, None),
            (".", RecordType::A, None),
            ("xz.test.", RecordType::A, None),
        ] {
            assert_eq!(find(name, kind).as_deref(), expected, "{name} {kind}");
        }
        assert!(Zones::default().find(&Name::root(), RecordType::A).is_none());
    }

    #[test]
    fn zones_that_would_hide_something_are_refused_with_all_other_errors() {
        let folder = tempfile::tempdir().unwrap();
        let zones = [
            ("Internal.", APEX),
            ("a.internal.", APEX),
            (".", APEX),
            ("z.test.", APEX),
            ("Z.test.", APEX),
            ("y.test.", ""),
        ];
        let errors = load(folder.path(), &zones, &["internal."]).err().unwrap();
        for (error, reason) in errors.iter().zip([
            "is the live domain internal.",
            "is below the live domain internal.",
            "is above the live domain internal.",
            "already read from",
            "no SOA record of y.test.",
            "no NS record of y.test.",
        ]) {
            assert!(error.contains(reason), "{error}");
        }
        assert_eq!(errors.len(), 6);
        let missing = [source("z.test.", "/none/z")];
        let errors = Zones::load(&missing, &[]).err().unwrap();
        assert!(lines(&errors)[0].starts_with("/none/z: No such file"));
    }

    #[test]
    fn the_example_zone_is_sound() {
        let zones = Zones::load(&[source("example.test.", "zones/example.test.zone")], &[]).unwrap();
        assert_eq!(zones.warnings(), []);
        assert!(zones.iter().all(|zone| zone.len() > 15 && !zone.is_empty()));
    }

    #[test]
    fn a_record_takes_little_more_than_its_text() {
        let text: String = (0..10_000).map(|i| format!("host-{i} A 192.0.2.{}\n", i % 256)).collect();
        let zone = zone(&format!("{APEX}{text}"));
        let octets = zone.octets.len()
            + zone.nodes.len() * size_of::<layout::Node>()
            + zone.sets.len() * size_of::<layout::Set>();
        assert!(octets < 10_000 * 60, "{octets} octets");
    }

    fn texts() -> impl Strategy<Value = String> {
        let word = prop_oneof![
            "[a-c@*.]{1,4}",
            "[0-9]{1,4}[wdhms]?",
            prop::sample::select(vec![
                "IN",
                "A",
                "AAAA",
                "NS",
                "CNAME",
                "DNAME",
                "SOA",
                "TXT",
                "MX",
                "SRV",
                "TYPE1",
                "\\#",
                "(",
                ")",
                "\"",
                "\n",
                "$ORIGIN",
                "$TTL",
                "$INCLUDE",
                "a",
                "192.0.2.1",
                "::1",
                ";",
                "\\",
                "\t",
                "00",
            ])
            .prop_map(str::to_owned),
        ];
        prop::collection::vec(word, 0..40).prop_map(|words| words.join(" ").replace("\n ", "\n"))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_octets_are_read_without_harm(text in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parsed(&text, &Files::new(), &Limits::default());
            let _ = parsed(&[APEX.as_bytes(), &text].concat(), &Files::new(), &Limits::default());
        }

        #[test]
        fn any_words_are_read_without_harm(text in texts(), owner in "[a-c*](\\.[a-c*])?", kind: u16) {
            let files = Files::from([("a", "a A 192.0.2.1"), ("b", "$INCLUDE a")]);
            let text = format!("{APEX}{text}");
            if let Ok((zone, _)) = parsed(text.as_bytes(), &files, &Limits::default()) {
                let name = Name::from_ascii(format!("{owner}.z.test.")).unwrap();
                zone.lookup(&name, RecordType::from(kind));
            }
        }
    }
}
