//! Static zones, from the configuration to the answer.

use std::fs;
use std::path::Path;

use hickory_proto::op::ResponseCode;
use hickory_proto::rr::{Name, RecordType};
use rollcall::config::{Config, Data, Zone};
use tempfile::TempDir;

use crate::server::{TestServer, ask_tcp, config, query};
use crate::wire::{data, soa};

/// A zone with what its tests, and those of forwarding, ask for.
pub const EXAMPLE: &str = "\
$TTL 300
@        SOA ns hostmaster 1 3600 600 86400 60
         NS  ns
ns       A   192.0.2.53
www      A   192.0.2.1
www      AAAA 2001:db8::1
alias    CNAME www
*.wild   TXT \"any\"
deep.below.ent A 192.0.2.9
old      DNAME new
a.new    A   192.0.2.7
sub      NS  ns.sub
ns.sub   A   192.0.2.54
";

/// Writes a zone's text into a folder; what the configuration says of it.
pub fn write(folder: &Path, name: &str, text: &str) -> Zone {
    let file = folder.join(format!("{name}zone"));
    fs::write(&file, text).unwrap();
    Zone { name: Name::from_ascii(name).unwrap(), file }
}

/// A server with these zones, and the folder of their files.
pub async fn serve(zones: &[(&str, &str)]) -> (TestServer, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let zones = zones.iter().map(|(name, text)| write(folder.path(), name, text)).collect();
    let server = TestServer::with(|config| {
        config.data = Data::Ephemeral;
        config.zones = zones;
    })
    .await;
    (server, folder)
}

/// The configuration that a server was started with, but for the zones.
fn same_with(server: &TestServer, zones: Vec<Zone>) -> Config {
    Config { zones, data: Data::Ephemeral, ..config(&server.dir) }
}

#[tokio::test]
async fn a_zone_answers_beside_live_names() {
    let (server, _folder) = serve(&[("example.test.", EXAMPLE)]).await;
    for (name, kind, expected) in [
        ("www.example.test.", RecordType::A, "192.0.2.1"),
        ("WWW.Example.TEST.", RecordType::AAAA, "2001:db8::1"),
        ("alias.example.test.", RecordType::A, "192.0.2.1"),
        ("x.y.wild.example.test.", RecordType::TXT, "any"),
        ("a.old.example.test.", RecordType::A, "192.0.2.7"),
        ("example.test.", RecordType::NS, "ns.example.test."),
    ] {
        for answer in [server.ask(name, kind).await, ask_tcp(server.dns(), &query(name, kind)).await] {
            assert!(answer.authoritative);
            assert_eq!(data(&answer.answers, kind), [expected], "{name}");
        }
    }
    for (name, rcode) in
        [("none.example.test.", ResponseCode::NXDomain), ("below.ent.example.test.", ResponseCode::NoError)]
    {
        let answer = server.ask(name, RecordType::A).await;
        assert_eq!(answer.response_code, rcode, "{name}");
        assert_eq!(soa(&answer), (Name::from_ascii("example.test.").unwrap(), 60, 60), "{name}");
    }
    let referral = server.ask("host.sub.example.test.", RecordType::A).await;
    assert!(!referral.authoritative && referral.answers.is_empty());
    assert_eq!(data(&referral.authorities, RecordType::NS), ["ns.sub.example.test."]);
    assert_eq!(data(&referral.additionals, RecordType::A), ["192.0.2.54"]);
    let live = server.ask("n1.node.internal.", RecordType::A).await;
    assert_eq!(data(&live.answers, RecordType::A), ["127.0.0.1"]);
}

#[tokio::test]
async fn a_reload_takes_a_good_zone_and_keeps_the_last_good_one_for_a_bad_one() {
    let (mut server, folder) = serve(&[("example.test.", EXAMPLE)]).await;
    let address = async |server: &TestServer| {
        data(&server.ask("www.example.test.", RecordType::A).await.answers, RecordType::A)
    };
    let zone = write(folder.path(), "example.test.", &EXAMPLE.replace("192.0.2.1\n", "192.0.2.100\n"));
    assert_eq!(address(&server).await, ["192.0.2.1"], "nothing is read before the reload");
    server.running.reload(same_with(&server, vec![zone.clone()])).await.unwrap();
    assert_eq!(address(&server).await, ["192.0.2.100"]);

    // Line 5 is broken, and the rest would be another good zone.
    let broken = EXAMPLE.replace("www      A   192.0.2.1\n", "www      A   192.0.2\n");
    write(folder.path(), "example.test.", &broken);
    let refused = server.running.reload(same_with(&server, vec![zone.clone()])).await.unwrap_err();
    let said = format!("{refused:#}");
    assert!(said.contains(&format!("{}:5: ", zone.file.display())), "{said}");
    assert!(said.contains("192.0.2"), "it says what it read: {said}");
    assert_eq!(address(&server).await, ["192.0.2.100"]);

    fs::remove_file(&zone.file).unwrap();
    assert!(server.running.reload(same_with(&server, vec![zone])).await.is_err());
    assert_eq!(address(&server).await, ["192.0.2.100"]);

    // A zone that the configuration no longer names is gone.
    server.running.reload(same_with(&server, Vec::new())).await.unwrap();
    let answer = server.ask("www.example.test.", RecordType::A).await;
    assert_eq!(answer.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn a_bad_zone_among_good_ones_changes_none() {
    let (mut server, folder) = serve(&[("example.test.", EXAMPLE)]).await;
    let good = write(folder.path(), "good.test.", EXAMPLE);
    let bad = write(folder.path(), "bad.test.", "no zone at all\n");
    let changed = write(folder.path(), "example.test.", &EXAMPLE.replace("192.0.2.1\n", "192.0.2.100\n"));
    let zones = vec![changed, good, bad];
    assert!(server.running.reload(same_with(&server, zones)).await.is_err());
    let answer = server.ask("www.example.test.", RecordType::A).await;
    assert_eq!(data(&answer.answers, RecordType::A), ["192.0.2.1"]);
    let answer = server.ask("www.good.test.", RecordType::A).await;
    assert_eq!(answer.response_code, ResponseCode::Refused);
}

#[tokio::test]
async fn a_zone_at_above_or_below_a_live_domain_is_an_error_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["internal.", "consul.", "corp.internal.", "a.b.consul.", "."] {
        let dir = tempfile::tempdir().unwrap();
        let mut config = config(&dir);
        config.zones = vec![write(folder.path(), name, EXAMPLE)];
        let refused = rollcall::start(config).await.err().unwrap_or_else(|| panic!("{name} was taken"));
        let said = format!("{refused:#}");
        assert!(said.contains("live domain"), "{name}: {said}");
    }
}

#[tokio::test]
async fn one_zone_named_twice_is_an_error_at_the_start() {
    let (folder, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let mut config = config(&dir);
    config.zones =
        vec![write(folder.path(), "example.test.", EXAMPLE), write(folder.path(), "Example.TEST.", EXAMPLE)];
    let said = format!("{:#}", rollcall::start(config).await.err().unwrap());
    assert!(said.contains("already"), "{said}");
}

#[tokio::test]
async fn the_closest_zone_answers() {
    let inner =
        "@ 60 SOA ns hostmaster 7 3600 600 86400 60\n@ 60 NS ns\nns 60 A 192.0.2.54\nhost 60 A 192.0.2.99\n";
    let (server, _folder) = serve(&[("example.test.", EXAMPLE), ("sub.example.test.", inner)]).await;
    let answer = server.ask("host.sub.example.test.", RecordType::A).await;
    assert!(answer.authoritative);
    assert_eq!(data(&answer.answers, RecordType::A), ["192.0.2.99"]);
}

/// RFC 1034 section 4.3.2, step 3a: the look-up begins anew at the alias' target, as long as that is ours.
#[tokio::test]
async fn an_alias_into_a_live_name_or_another_zone_is_followed() {
    let first = format!(
        "{EXAMPLE}shop CNAME web.service.internal.\nother CNAME a.second.test.\ngone CNAME none.service.internal.\n\
         away CNAME www.elsewhere.test.\ncircle CNAME circle.second.test.\n"
    );
    let second = "$TTL 60\n@ SOA ns hostmaster 1 3600 600 86400 60\n@ NS ns\nns A 192.0.2.53\na A 192.0.2.99\n\
                  circle CNAME circle.example.test.\n";
    let (server, _folder) = serve(&[("example.test.", &first), ("second.test.", second)]).await;
    server.register(serde_json::json!({ "Name": "web", "Address": "10.0.0.1" })).await;
    for (name, cname, address) in [
        ("shop.example.test.", "web.service.internal.", Some("10.0.0.1")),
        ("other.example.test.", "a.second.test.", Some("192.0.2.99")),
        ("away.example.test.", "www.elsewhere.test.", None),
    ] {
        let answer = server.ask(name, RecordType::A).await;
        assert_eq!((answer.response_code, answer.authoritative), (ResponseCode::NoError, true), "{name}");
        assert_eq!(data(&answer.answers, RecordType::CNAME), [cname]);
        assert_eq!(data(&answer.answers, RecordType::A).first().map(String::as_str), address, "{answer}");
        let alias = server.ask(name, RecordType::CNAME).await;
        assert_eq!(alias.answers.len(), 1, "the alias itself was asked for: {alias}");
    }
    let live = server.ask("shop.example.test.", RecordType::A).await;
    assert!(live.answers.iter().all(|record| record.ttl <= 300) && live.answers[1].ttl <= 5, "{live}");
    let gone = server.ask("gone.example.test.", RecordType::A).await;
    assert_eq!((gone.response_code, gone.answers.len()), (ResponseCode::NXDomain, 1));
    assert_eq!(gone.authorities[0].record_type(), RecordType::SOA);
    assert_eq!(gone.authorities[0].name.to_ascii(), "internal.", "of the last name's zone");
    let circle = server.ask("circle.example.test.", RecordType::A).await;
    assert_eq!(data(&circle.answers, RecordType::CNAME).len(), 2, "{circle}");
}
