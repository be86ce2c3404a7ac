//! Static zones: records from master files, for names that are not services.
//!
//! [`Zones::load`] reads all files into one immutable value, or says all that is wrong with them and changes nothing:
//! who reloads keeps the old value then. [`token`] and [`read`] turn text into records, [`rdata`] their data into
//! octets, [`check`] applies the rules and builds the [`layout`], and [`lookup`] answers from it.
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
        let at_or_above = key::beginnings(&key).take_while(|length| *length <= self.longest);
        let (mut closest, mut parent) = (None, None);
        for zone in at_or_above.filter_map(|length| self.zones.get(&key[..length])) {
            parent = closest.replace(zone);
        }
        let child = kind == RecordType::DS && closest.is_some_and(|zone| zone.origin() == name);
        parent.filter(|parent: &&Zone| child && parent.delegates(name)).or(closest)
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
