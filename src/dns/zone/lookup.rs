//! One question in one zone: the algorithm of RFC 1034 section 4.3.2 with DNAME (RFC 6672), wildcards as RFC 4592
//! defines them, and negative answers as RFC 2308 does.
//!
//! Pure: the same zone and question give the same records. An alias is followed while its target stays in the
//! zone; the rest is the resolver's to ask, also where the target is in another zone of ours.

use std::collections::HashSet;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::rdata::CNAME;
use hickory_proto::rr::{Name, RData, Record, RecordType};

use super::key;
use super::layout::{Set, Zone, name_in};

/// How many names one answer goes through. A chain that is longer ends with its last alias: the resolver
/// asks on from there, and a client cannot make us walk in circles.
const NAMES_MAX: usize = 16;

/// The sections of an answer.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Lookup {
    /// Of the last name of a chain (RFC 6604 section 3).
    pub rcode: ResponseCode,
    /// Of the first name (RFC 1035 section 4.1.1): a referral after an alias is authoritative.
    pub authoritative: bool,
    /// The authority section leads to another zone's servers, the additional one holds their glue.
    pub referral: bool,
    pub answer: Vec<Record>,
    pub authority: Vec<Record>,
    pub additional: Vec<Record>,
}

/// What a walk from the apex towards a name ends at.
enum Found {
    /// A delegation at or above the name.
    Cut {
        labels: usize,
        set: Set,
    },
    /// A DNAME above the name.
    Redirect {
        labels: usize,
        set: Set,
    },
    /// The name itself, or the wildcard that stands for it.
    Node(u32),
    Nothing,
}

impl Zone {
    /// Answers a question about a name at or below the origin. ANY gives one RRset, which tells that the name
    /// exists.
    pub fn lookup(&self, name: &Name, kind: RecordType) -> Lookup {
        let found = Lookup { authoritative: true, ..Lookup::default() };
        let mut chain = Chain { zone: self, kind, found, seen: Vec::new() };
        let mut next = Some(name.clone());
        while let Some(name) = next {
            next = chain.step(&name);
        }
        chain.found
    }

    /// The RRset of a name in key form that is answered as it is: addresses and texts, which lead to no other name, at a name
    /// that exists or that a wildcard stands for. None for all that needs [`lookup`](Self::lookup).
    pub(super) fn plain(&self, key: &[u8], kind: RecordType) -> Option<Set> {
        if !matches!(kind, RecordType::A | RecordType::AAAA | RecordType::TXT) {
            return None;
        }
        match self.walk(key, kind) {
            Found::Node(node) => self.set(node, kind),
            _ => None,
        }
    }

    /// Whether a name at or below the origin is delegated to another zone.
    pub(super) fn delegates(&self, name: &Name) -> bool {
        let found = self.key(name).map(|key| self.walk(&key, RecordType::NS));
        matches!(found, Some(Found::Cut { labels, .. }) if labels == name.iter().len())
    }

    /// The node of a host's name, on whichever side of a delegation: glue is not authoritative.
    fn node_or_wildcard(&self, key: &[u8]) -> Option<u32> {
        let mut encloser = 0;
        for length in key::beginnings(key) {
            if self.node(&key[..length]).is_none() {
                return self.wildcard(&key[..encloser]);
            }
            encloser = length;
        }
        self.node(key)
    }

    /// RFC 4592 section 3.3.1: of all wildcards only the one directly below the closest encloser counts.
    fn wildcard(&self, encloser: &[u8]) -> Option<u32> {
        self.node(&[encloser, b"*\0"].concat())
    }

    fn walk(&self, key: &[u8], kind: RecordType) -> Found {
        let (mut encloser, mut labels) = (0, self.depth);
        for length in key::beginnings(key) {
            let Some(node) = self.node(&key[..length]) else {
                return self.wildcard(&key[..encloser]).map_or(Found::Nothing, Found::Node);
            };
            let whole = length == key.len();
            if length > 0 {
                labels += 1;
                // RFC 4035 section 3.1.4.1: DS belongs to the parent.
                let parents = whole && kind == RecordType::DS;
                if let Some(set) = self.set(node, RecordType::NS).filter(|_| !parents) {
                    return Found::Cut { labels, set };
                }
            }
            if whole {
                return Found::Node(node);
            }
            if let Some(set) = self.set(node, RecordType::DNAME) {
                return Found::Redirect { labels, set };
            }
            encloser = length;
        }
        Found::Nothing
    }
}

/// An answer under way.
struct Chain<'z> {
    zone: &'z Zone,
    kind: RecordType,
    found: Lookup,
    /// The names that it went through.
    seen: Vec<Vec<u8>>,
}

impl Chain<'_> {
    /// Answers for one name of the chain; returns the next one.
    fn step(&mut self, name: &Name) -> Option<Name> {
        let key = self.zone.key(name)?;
        if self.seen.contains(&key) || self.seen.len() == NAMES_MAX {
            return None;
        }
        let found = self.zone.walk(&key, self.kind);
        self.seen.push(key);
        match found {
            Found::Cut { labels, set } => self.refer(&name.trim_to(labels), set),
            Found::Redirect { labels, set } => return self.redirect(name, labels, set),
            Found::Node(node) => return self.answer(name, node),
            Found::Nothing => {
                self.found.rcode = ResponseCode::NXDomain;
                self.negative();
            }
        }
        None
    }

    /// Step 3a: the records that are asked for, an alias, or nothing of the type.
    fn answer(&mut self, name: &Name, node: u32) -> Option<Name> {
        let zone = self.zone;
        let asked = match self.kind {
            RecordType::ANY => zone.sets(node).first().copied(),
            kind => zone.set(node, kind),
        };
        if let Some(set) = asked {
            // A DNAME that led here may be what is asked for.
            let before = self.found.answer.len();
            for record in zone.records(set, name) {
                if !self.found.answer[..before].contains(&record) {
                    self.found.answer.push(record);
                }
            }
            self.hosts(set).iter().for_each(|host| self.addresses(host));
            return None;
        }
        let Some(set) = zone.set(node, RecordType::CNAME) else {
            self.negative();
            return None;
        };
        self.found.answer.extend(zone.records(set, name));
        zone.data(set).next().and_then(name_in)
    }

    /// Step 3b: what is known of the servers of the zone below.
    fn refer(&mut self, cut: &Name, set: Set) {
        self.found.referral = true;
        self.found.authoritative = !self.found.answer.is_empty();
        self.found.authority.extend(self.zone.records(set, cut));
        let mut hosts = self.hosts(set);
        // RFC 9471 section 3.1: a host below the cut cannot be found without its address, others can.
        hosts.sort_by_key(|host| !cut.zone_of(host));
        hosts.iter().for_each(|host| self.addresses(host));
    }

    /// RFC 6672 section 3.2: the DNAME, a CNAME made from it, and on with the new name.
    fn redirect(&mut self, name: &Name, labels: usize, set: Set) -> Option<Name> {
        let owner = name.trim_to(labels);
        let target = self.zone.data(set).next().and_then(name_in)?;
        let before = |record: &Record| record.record_type() == RecordType::DNAME && record.name == owner;
        if !self.found.answer.iter().any(before) {
            self.found.answer.extend(self.zone.records(set, &owner));
        } else if owner.zone_of(&target) {
            // It leads below itself, and would until the name is too long.
            return None;
        }
        let kept = name.iter().take(name.iter().len() - labels);
        let Ok(mut next) = Name::from_labels(kept.chain(target.iter())) else {
            // Section 2.2: the new name has more than 255 octets.
            self.found.rcode = ResponseCode::YXDomain;
            return None;
        };
        next.set_fqdn(true);
        self.found.answer.push(Record::from_rdata(name.clone(), set.ttl, RData::CNAME(CNAME(next.clone()))));
        // That CNAME is itself the answer to some questions.
        (!matches!(self.kind, RecordType::CNAME | RecordType::ANY)).then_some(next)
    }

    /// The SOA, with the time that "no" may be kept (RFC 2308 section 3).
    fn negative(&mut self) {
        let Some(set) = self.zone.set(0, RecordType::SOA) else { return };
        for mut record in self.zone.records(set, self.zone.origin()) {
            if let RData::SOA(soa) = &record.data {
                record.ttl = record.ttl.min(soa.minimum);
            }
            self.found.authority.push(record);
        }
    }

    /// The hosts that records lead to, each once.
    fn hosts(&self, set: Set) -> Vec<Name> {
        // Where the name lies in the record data.
        let before = match RecordType::from(set.kind) {
            RecordType::NS => 0,
            RecordType::MX | RecordType::SVCB | RecordType::HTTPS => 2,
            RecordType::SRV => 6,
            _ => return Vec::new(),
        };
        let mut seen = HashSet::new();
        let names = self.zone.data(set).filter_map(|data| data.get(before..).and_then(name_in));
        names.filter(|host| seen.insert(host.clone())).collect()
    }

    /// RFC 1034 section 4.3.2 step 6, RFC 2782, RFC 9460 section 4.1: the addresses of a host, if they are here.
    fn addresses(&mut self, host: &Name) {
        let zone = self.zone;
        let Some(key) = zone.key(host) else { return };
        let Some(node) = zone.node_or_wildcard(&key) else { return };
        for kind in [RecordType::A, RecordType::AAAA] {
            let answered =
                self.found.answer.iter().any(|record| record.record_type() == kind && record.name == *host);
            if let Some(set) = zone.set(node, kind).filter(|_| !answered) {
                self.found.additional.extend(zone.records(set, host));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::tests::zone;
    use super::*;

    const APEX: &str = "@ 500 SOA ns root 1 0 60 6000 100\n@ 500 NS ns\n";

    fn name(text: &str) -> Name {
        Name::from_ascii(text).unwrap()
    }

    /// A lookup below `z.test`, in words: the rcode, then each section.
    fn asked(text: &str, question: &str) -> String {
        let zone = zone(&format!("{APEX}{text}"));
        let (owner, kind) = question.split_once(' ').unwrap();
        let owner = if owner == "@" { name("z.test.") } else { name(&format!("{owner}.z.test.")) };
        shown(&zone.lookup(&owner, kind.parse().unwrap()))
    }

    fn shown(found: &Lookup) -> String {
        let section = |records: &[Record]| {
            let texts = records.iter().map(|record| {
                let data = match &record.data {
                    RData::SOA(_) => record.ttl.to_string(),
                    RData::Unknown { rdata, .. } => name_in(&rdata.anything).unwrap().to_ascii(),
                    data => data.to_string(),
                };
                format!("{} {} {data}", record.name, record.record_type()).replace("z.test.", "@")
            });
            texts.collect::<Vec<_>>().join(", ")
        };
        let rcode = match found.rcode {
            ResponseCode::NoError => "",
            ResponseCode::NXDomain => "nxdomain ",
            _ => "other ",
        };
        let aa = if found.authoritative { "aa" } else { "--" };
        let sections = [&found.answer, &found.authority, &found.additional].map(|records| section(records));
        format!("{rcode}{aa} [{}]", sections.join("] ["))
    }

    const SOA: &str = "@ SOA 100";

    #[test]
    fn names_that_exist() {
        let text = "a A 192.0.2.1\na A 192.0.2.2\n*.w A 192.0.2.3\nb.c TXT x\nm MX 1 a\nm MX 2 a\nm MX 3 m\nm A 192.0.2.4\n\
                    s SRV 1 1 80 a\ns SRV 1 1 81 a\nh HTTPS 1 a alpn=h2\n";
        for (question, expected) in [
            ("a A", "aa [a.@ A 192.0.2.1, a.@ A 192.0.2.2] [] []".to_owned()),
            ("A.w A", "aa [A.w.@ A 192.0.2.3] [] []".to_owned()),
            ("x.y.w A", "aa [x.y.w.@ A 192.0.2.3] [] []".to_owned()),
            ("x.w TXT", format!("aa [] [{SOA}] []")),
            ("w A", format!("aa [] [{SOA}] []")),
            ("c A", format!("aa [] [{SOA}] []")),
            ("a TXT", format!("aa [] [{SOA}] []")),
            ("x.a A", format!("nxdomain aa [] [{SOA}] []")),
            ("@ NS", "aa [@ NS ns.@] [] []".to_owned()),
            ("@ DS", format!("aa [] [{SOA}] []")),
        ] {
            assert_eq!(asked(text, question), expected, "{question}");
        }
        let addresses = "a.@ A 192.0.2.1, a.@ A 192.0.2.2";
        assert!(asked(text, "m MX").ends_with(&format!("[{addresses}, m.@ A 192.0.2.4]")), "each host once");
        assert!(asked(text, "s SRV").ends_with(&format!("[{addresses}]")));
        let zone = zone(&format!("{APEX}{text}"));
        let found = zone.lookup(&name("h.z.test."), RecordType::HTTPS);
        assert_eq!((found.answer.len(), found.additional.len()), (1, 2));
    }

    /// RFC 4592 section 2.2.1 and 3.3.1.
    #[test]
    fn wildcards_stand_only_below_the_closest_encloser() {
        let text = "* A 192.0.2.1\na.b.c TXT x\nx.*.d A 192.0.2.2\n*.d TXT x\nd.e.* A 192.0.2.3\n";
        for (question, expected) in [
            ("x A", "aa [x.@ A 192.0.2.1] [] []".to_owned()),
            ("c A", format!("aa [] [{SOA}] []")),
            ("x.c A", format!("nxdomain aa [] [{SOA}] []")),
            ("b.c A", format!("aa [] [{SOA}] []")),
            ("x.b.c A", format!("nxdomain aa [] [{SOA}] []")),
            ("x.a.b.c A", format!("nxdomain aa [] [{SOA}] []")),
            ("* A", "aa [*.@ A 192.0.2.1] [] []".to_owned()),
            // A star in the middle is a label like any other.
            ("x.*.d A", "aa [x.*.d.@ A 192.0.2.2] [] []".to_owned()),
            ("x.y.d A", format!("aa [] [{SOA}] []")),
            ("y.*.d TXT", format!("nxdomain aa [] [{SOA}] []")),
            ("e.* A", format!("aa [] [{SOA}] []")),
            ("f.* A", format!("nxdomain aa [] [{SOA}] []")),
        ] {
            assert_eq!(asked(text, question), expected, "{question}");
        }
    }

    #[test]
    fn aliases_are_followed_to_their_end_in_the_zone() {
        let text = "a CNAME b\nb CNAME c\nc A 192.0.2.1\nout CNAME x.elsewhere.\nmissing CNAME n.c\n\
                    *.w CNAME C\nl1 CNAME l2\nl2 CNAME l3\nl3 CNAME l2\nself CNAME self\nm CNAME mx\nmx MX 1 c\n";
        for (question, expected) in [
            ("a A", "aa [a.@ CNAME b.@, b.@ CNAME c.@, c.@ A 192.0.2.1] [] []".to_owned()),
            ("a CNAME", "aa [a.@ CNAME b.@] [] []".to_owned()),
            ("a ANY", "aa [a.@ CNAME b.@] [] []".to_owned()),
            ("a TXT", format!("aa [a.@ CNAME b.@, b.@ CNAME c.@] [{SOA}] []")),
            ("out A", "aa [out.@ CNAME x.elsewhere.] [] []".to_owned()),
            ("missing A", format!("nxdomain aa [missing.@ CNAME n.c.@] [{SOA}] []")),
            ("X.w A", "aa [X.w.@ CNAME C.@, C.@ A 192.0.2.1] [] []".to_owned()),
            ("l1 A", "aa [l1.@ CNAME l2.@, l2.@ CNAME l3.@, l3.@ CNAME l2.@] [] []".to_owned()),
            ("self A", "aa [self.@ CNAME self.@] [] []".to_owned()),
            ("m MX", "aa [m.@ CNAME mx.@, mx.@ MX 1 c.@] [] [c.@ A 192.0.2.1]".to_owned()),
        ] {
            assert_eq!(asked(text, question), expected, "{question}");
        }
        let long: String = (0..40).map(|i| format!("n{i} CNAME n{}\n", i + 1)).collect();
        let zone = zone(&format!("{APEX}{long}"));
        assert_eq!(zone.lookup(&name("n0.z.test."), RecordType::A).answer.len(), NAMES_MAX);
    }

    #[test]
    fn dnames_rewrite_what_is_below_them() {
        let text = "d DNAME e\nd A 192.0.2.9\na.e A 192.0.2.1\nm.e MX 1 a.e\nself DNAME x.self\nloop1 DNAME loop2\n\
                    loop2 DNAME loop1\nup DNAME @\nout DNAME elsewhere.\nal CNAME a.d\n";
        for (question, expected) in [
            ("a.d A", "aa [d.@ DNAME e.@, a.d.@ CNAME a.e.@, a.e.@ A 192.0.2.1] [] []".to_owned()),
            ("a.D A", "aa [D.@ DNAME e.@, a.D.@ CNAME a.e.@, a.e.@ A 192.0.2.1] [] []".to_owned()),
            ("d A", "aa [d.@ A 192.0.2.9] [] []".to_owned()),
            ("d DNAME", "aa [d.@ DNAME e.@] [] []".to_owned()),
            ("d TXT", format!("aa [] [{SOA}] []")),
            ("n.d A", format!("nxdomain aa [d.@ DNAME e.@, n.d.@ CNAME n.e.@] [{SOA}] []")),
            ("n.d CNAME", "aa [d.@ DNAME e.@, n.d.@ CNAME n.e.@] [] []".to_owned()),
            (
                "m.d MX",
                "aa [d.@ DNAME e.@, m.d.@ CNAME m.e.@, m.e.@ MX 1 a.e.@] [] [a.e.@ A 192.0.2.1]".to_owned(),
            ),
            ("q.self A", "aa [self.@ DNAME x.self.@, q.self.@ CNAME q.x.self.@] [] []".to_owned()),
            ("x.out A", "aa [out.@ DNAME elsewhere., x.out.@ CNAME x.elsewhere.] [] []".to_owned()),
            ("a.e.up A", "aa [up.@ DNAME @, a.e.up.@ CNAME a.e.@, a.e.@ A 192.0.2.1] [] []".to_owned()),
        ] {
            assert_eq!(asked(text, question), expected, "{question}");
        }
        assert!(asked(text, "al A").contains("al.@ CNAME a.d.@, d.@ DNAME e.@, a.d.@ CNAME a.e.@, a.e.@ A"));
        let circle = "aa [loop1.@ DNAME loop2.@, q.loop1.@ CNAME q.loop2.@, loop2.@ DNAME loop1.@, \
                      q.loop2.@ CNAME q.loop1.@] [] []";
        assert_eq!(asked(text, "q.loop1 A"), circle);
    }

    /// RFC 6672 section 2.2.
    #[test]
    fn a_name_that_grows_too_long_is_yxdomain() {
        let (label, short) = ("a".repeat(63), "b".repeat(40));
        let zone = zone(&format!("{APEX}d DNAME {label}.{label}.{label}\n"));
        let found = zone.lookup(&name(&format!("{short}.d.z.test.")), RecordType::A);
        assert_eq!((found.rcode, found.answer.len()), (ResponseCode::NXDomain, 2), "241 octets");
        let found = zone.lookup(&name(&format!("{label}.d.z.test.")), RecordType::A);
        assert_eq!((found.rcode, found.answer.len()), (ResponseCode::YXDomain, 1));
        assert!(found.authoritative && found.authority.is_empty());
    }

    #[test]
    fn delegations() {
        let text = "c NS ns.c\nc NS ns.s\nc NS ns.elsewhere.\nc DS 1 8 2 00\nns.c A 192.0.2.1\ns NS ns.s\nns.s AAAA 2001:db8::1\n\
                    x.c TXT hidden\nal CNAME q.c\n*.w CNAME q.c\nd DNAME c\n";
        let ns = "c.@ NS ns.c.@, c.@ NS ns.s.@, c.@ NS ns.elsewhere.";
        let glue = "ns.c.@ A 192.0.2.1, ns.s.@ AAAA 2001:db8::1";
        for (question, expected) in [
            ("c A", format!("-- [] [{ns}] [{glue}]")),
            ("c NS", format!("-- [] [{ns}] [{glue}]")),
            ("c ANY", format!("-- [] [{ns}] [{glue}]")),
            ("y.x.c TXT", format!("-- [] [{ns}] [{glue}]")),
            ("ns.c A", format!("-- [] [{ns}] [{glue}]")),
            ("x.c DS", format!("-- [] [{ns}] [{glue}]")),
            ("s DS", format!("aa [] [{SOA}] []")),
            ("al A", format!("aa [al.@ CNAME q.c.@] [{ns}] [{glue}]")),
            ("k.w A", format!("aa [k.w.@ CNAME q.c.@] [{ns}] [{glue}]")),
            ("q.d A", format!("aa [d.@ DNAME c.@, q.d.@ CNAME q.c.@] [{ns}] [{glue}]")),
        ] {
            assert_eq!(asked(text, question), expected, "{question}");
        }
        let zone = zone(&format!("{APEX}{text}"));
        assert_eq!(zone.lookup(&name("c.z.test."), RecordType::DS).answer.len(), 1);
        assert!(zone.lookup(&name("c.z.test."), RecordType::A).referral);
        for (delegated, is) in [("c", true), ("x.c", false), ("w", false), ("n", false)] {
            assert_eq!(zone.delegates(&name(&format!("{delegated}.z.test."))), is, "{delegated}");
        }
    }

    #[test]
    fn no_is_kept_for_the_smaller_of_ttl_and_minimum() {
        for (soa, expected) in [("50 SOA ns root 1 0 0 0 100", 50), ("500 SOA ns root 1 0 0 0 0", 0)] {
            let found = zone(&format!("@ {soa}\n@ 500 NS ns\n")).lookup(&name("x.z.test."), RecordType::A);
            assert_eq!(found.authority[0].ttl, expected);
        }
        let found = zone(APEX).lookup(&name("z.test."), RecordType::SOA);
        assert_eq!(found.answer[0].ttl, 500);
    }

    fn labels() -> impl Strategy<Value = String> {
        let label = prop::sample::select(vec!["a", "b", "*", "x"]);
        prop::collection::vec(label, 0..4).prop_map(|labels| match labels.len() {
            0 => "@".to_owned(),
            _ => labels.join("."),
        })
    }

    fn lines() -> impl Strategy<Value = Vec<(String, String)>> {
        let target = prop_oneof![9 => labels(), 1 => Just("a.elsewhere.".to_owned())];
        let kinds = vec!["A 192.0.2.1", "TXT x", "NS ", "CNAME ", "CNAME ", "DNAME ", "MX 1 ", "SRV 1 1 1 "];
        let data = (prop::sample::select(kinds), target).prop_map(|(kind, target)| match kind {
            "A 192.0.2.1" | "TXT x" => kind.to_owned(),
            kind => format!("{kind}{target}"),
        });
        prop::collection::vec((labels(), data), 0..14)
    }

    /// Whether anything exists at or below a name, from the text of the zone.
    fn exists(lines: &[(String, String)], asked: &Name) -> bool {
        let owner = |text: &str| match text {
            "@" => name("z.test."),
            text => name(&format!("{text}.z.test.")),
        };
        asked.zone_of(&name("z.test.")) || lines.iter().any(|(text, _)| asked.zone_of(&owner(text)))
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1000, ..ProptestConfig::default() })]

        #[test]
        fn answers_keep_the_rules(
            lines in lines(),
            owner in labels(),
            kind in prop::sample::select(vec!["A", "NS", "CNAME", "DNAME", "TXT", "MX", "DS", "ANY"]),
        ) {
            // An alias stands alone; the first line of a name wins.
            let mut kept: Vec<(String, String)> = Vec::new();
            for (owner, data) in lines {
                let alias = |data: &str| data.starts_with("CNAME");
                let taken = kept.iter().any(|(other, before)| {
                    let second = data.starts_with("DNAME") && before.starts_with("DNAME");
                    *other == owner && (alias(before) || alias(&data) || second)
                });
                if !(taken || alias(&data) && owner == "@") {
                    kept.push((owner, data));
                }
            }
            let text: String = kept.iter().map(|(owner, data)| format!("{owner} {data}\n")).collect();
            let zone = zone(&format!("{APEX}{text}"));
            let question = if owner == "@" { name("z.test.") } else { name(&format!("{owner}.z.test.")) };
            let found = zone.lookup(&question, kind.parse().unwrap());

            let aliases = found.answer.iter().filter_map(|record| match &record.data {
                RData::CNAME(CNAME(target)) => Some(target),
                _ => None,
            });
            let aliases: Vec<&Name> = aliases.collect();
            prop_assert!(aliases.len() <= NAMES_MAX);
            let last = if kind == "CNAME" { &question } else { aliases.last().copied().unwrap_or(&question) };
            if found.rcode == ResponseCode::NXDomain {
                prop_assert!(!exists(&kept, last), "{} exists", last);
            }
            if found.answer.is_empty() && !found.referral || found.rcode == ResponseCode::NXDomain {
                prop_assert_eq!(found.authority.len(), 1, "a SOA tells how long to keep it");
                prop_assert_eq!(found.authority[0].record_type(), RecordType::SOA);
                prop_assert_eq!(found.authority[0].ttl, 100);
            }
            prop_assert!(found.authoritative || found.referral && found.answer.is_empty());
            for section in [&found.answer, &found.authority, &found.additional] {
                for (number, record) in section.iter().enumerate() {
                    prop_assert!(zone.origin().zone_of(&record.name));
                    prop_assert!(!section[..number].contains(record), "{} stands twice", record);
                }
            }
            prop_assert!(found.additional.iter().all(|record| !found.answer.contains(record)));
        }
    }
}
