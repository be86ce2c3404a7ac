//! The grammar, the checks and what each comparison says, on a thing with every kind of field.

use proptest::prelude::*;

use super::expression::{Match, Operator};
use super::*;

const LIMITS: Limits = Limits { octets_max: 100_000, matches_max: 1000 };
const ITEM: Fields = &[("Status", Kind::Text), ("Count", Kind::Integer), ("Tags", Kind::Texts)];
const FIELDS: Fields = &[
    ("Name", Kind::Text),
    ("Port", Kind::Integer),
    ("On", Kind::Bool),
    ("Tags", Kind::Texts),
    ("None", Kind::Texts),
    ("Meta", Kind::Map(&Kind::Text)),
    ("Inner", Kind::Struct(ITEM)),
    ("Items", Kind::List(ITEM)),
    ("Nobody", Kind::List(ITEM)),
    ("not", Kind::Text),
];

struct Thing;
struct Item(&'static str);

impl Root for Thing {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        let Some((first, rest)) = path.split_first() else { return false };
        match first.as_str() {
            "Name" => text("web-1", test),
            "Port" => integer(8080, test),
            "On" => flag(true, test),
            "Tags" => among(["v1", "blue"].into_iter(), test),
            "None" => among(std::iter::empty(), test),
            "Meta" => pairs([("env", "prod"), ("a b", "x.y"), ("empty", "")].into_iter(), rest, test),
            "Inner" => Item("warning").find(rest, test),
            "Items" => list(["passing", "critical"].into_iter().map(Item), rest, test),
            "Nobody" => list(std::iter::empty::<Item>(), rest, test),
            "not" => text("1", test),
            _ => false,
        }
    }
}

impl Root for Item {
    fn find(&self, path: &[String], test: Test<'_>) -> bool {
        match path.first().map(String::as_str) {
            Some("Status") => text(self.0, test),
            Some("Count") => integer(-3, test),
            Some("Tags") => among(["t"].into_iter(), test),
            _ => false,
        }
    }
}

fn said(text: &str) -> Result<bool, String> {
    Filter::new(text, FIELDS, &LIMITS).map(|filter| filter.matches(&Thing)).map_err(|e| e.to_string())
}

#[test]
fn comparisons_say_what_consuls_do() {
    for (text, expected) in [
        (r#"Name == "web-1""#, true),
        (r#"Name==web"#, false),
        (r#"Name != "web""#, true),
        (r#""eb" in Name"#, true),
        (r#"Name contains "eb""#, true),
        (r#"Name not contains "eb""#, false),
        (r#""x" not in Name"#, true),
        (r#"Name matches "^web-[0-9]+$""#, true),
        (r"Name matches `\d$`", true),
        (r#"Name not matches "db""#, true),
        ("Port == 8080", true),
        ("Port == \"0x1f90\"", true),
        ("Port != 80", true),
        ("Inner.Count == -3", true),
        ("On == true", true),
        ("On != 1", false),
        ("v1 in Tags", true),
        ("v in Tags", false),
        ("Tags contains blue", true),
        ("green not in Tags", true),
        ("Tags is empty", false),
        ("Tags is not empty", true),
        ("None is empty", true),
        ("x not in None", true),
        ("env in Meta", true),
        ("Meta contains nope", false),
        ("Meta is not empty", true),
        ("Meta.env == prod", true),
        (r#"Meta["a b"] == x.y"#, true),
        ("Meta[`a b`] == \"x.y\"", true),
        (r#"Meta.empty == """#, true),
        // A key that is not there.
        ("Meta.nope == prod", false),
        ("Meta.nope != prod", true),
        ("prod in Meta.nope", false),
        ("prod not in Meta.nope", true),
        (r#"Meta.nope matches "x""#, true),
        (r#"Meta.nope not matches "x""#, true),
        // Any of a list.
        ("Items.Status == critical", true),
        ("Items.Status == warning", false),
        ("Items.Status != critical", true),
        ("not Items.Status == critical", false),
        ("t in Items.Tags", true),
        ("Items is not empty", true),
        ("Nobody is empty", true),
        ("Nobody.Status == passing", false),
        ("Nobody.Status != passing", false),
        // How they are put together.
        ("Port == 1 or Port == 8080", true),
        ("Port == 1 and Port == 2 or On == true", true),
        ("On == true or Port == 1 and Port == 2", true),
        ("(On == true or Port == 1) and Port == 2", false),
        ("not Port == 1 and On == true", true),
        ("not (Port == 8080 or On == true)", false),
        ("not not Port == 8080", true),
        ("  (( Port==8080 ))\n\t", true),
        ("not == 1", true),
        ("not not == 1", false),
        ("not in Tags", false),
        ("Port == 1 or\r\n Port == 8080", true),
    ] {
        assert_eq!(said(text), Ok(expected), "{text}");
    }
}

#[test]
fn what_does_not_fit_is_refused_in_consuls_words() {
    for (text, fault) in [
        ("Nope == 1", r#"Selector "Nope" is not valid"#),
        ("Inner.Nope == 1", r#"Selector "Inner.Nope" is not valid"#),
        ("Name.x == 1", r#"Selector "Name.x" is not valid"#),
        ("Meta.a.b == 1", r#"Selector "Meta.a.b" is not valid"#),
        ("name == web", r#"Selector "name" is not valid"#),
        ("Tags == x", r#"Invalid match operator "Equal" for selector "Tags""#),
        ("Name is empty", r#"Invalid match operator "Is Empty" for selector "Name""#),
        ("Port matches x", r#"Invalid match operator "Matches" for selector "Port""#),
        ("x not in Items", r#"Invalid match operator "Not In" for selector "Items""#),
        ("Inner == x", r#"Invalid match operator "Equal" for selector "Inner""#),
        (
            "Port == x",
            r#"Failed to coerce value "x" for selector "Port": strconv.ParseInt: parsing "x": invalid syntax"#,
        ),
        (
            "Port == 99999999999999999999",
            r#"Failed to coerce value "99999999999999999999" for selector "Port": strconv.ParseInt: parsing "99999999999999999999": value out of range"#,
        ),
        (
            "On == maybe",
            r#"Failed to coerce value "maybe" for selector "On": strconv.ParseBool: parsing "maybe": invalid syntax"#,
        ),
        ("Name matches \"(\"", r#"Failed to compile regular expression "(": unclosed group"#),
    ] {
        assert_eq!(said(text), Err(fault.to_owned()), "{text}");
    }
}

#[test]
fn what_is_no_expression_is_refused_with_its_place() {
    for (text, start) in [
        ("", "1:1 (0): expected a selector"),
        ("   ", "1:4 (3): expected a selector"),
        ("Name", "1:5 (4): expected \"==\""),
        ("Name ==", "1:8 (7): expected a value"),
        ("Name = 1", "1:5 (4): expected \"==\""),
        ("Name == 1 AND Port == 1", "1:11 (10): expected \"and\""),
        ("Name == 1 and", "1:11 (10): expected \"and\""),
        ("Name == 1 and ", "1:15 (14): expected a selector"),
        ("(Name == 1", "1:11 (10): Unmatched parentheses"),
        ("Name == 1)", "1:10 (9): expected \"and\""),
        ("(Name == 1)or(Port == 1)", "1:12 (11): "),
        ("Name == \"x", "1:9 (8): Unterminated string literal"),
        ("Name == `x", "1:9 (8): Unterminated string literal"),
        (r#"Name == "\d""#, "1:9 (8): invalid syntax: no such escape"),
        (r#"Name == "\ud800""#, "1:9 (8): invalid syntax: no such escape"),
        (r#"Name == "\xff""#, "1:9 (8): invalid syntax: not UTF-8"),
        ("Name == \"a\nb\"", "1:9 (8): invalid syntax: a line end"),
        ("Port == 01", "1:9 (8): Invalid number literal"),
        ("Port == 1.", "1:9 (8): Invalid number literal"),
        ("Port == 1x", "1:9 (8): Invalid number literal"),
        ("Meta[env] == x", "1:6 (5): Invalid index"),
        (r#"Meta["env" == x"#, "1:12 (11): Unclosed index expression"),
        ("\"x\" in \"Tags\"", "1:8 (7): Invalid selector"),
        ("x in", "1:2 (1): expected \"==\""),
        ("Tags is nothing", "1:5 (4): expected \"==\""),
        ("_x == 1", "1:1 (0): expected a selector"),
    ] {
        let fault = said(text).expect_err(text);
        assert!(fault.starts_with(start), "{text}: {fault}");
    }
}

#[test]
fn escapes_are_gos() {
    for (text, value) in [
        (r#""\a\b\f\n\r\t\v\\\"""#, "\x07\x08\x0c\n\r\t\x0b\\\""),
        (r#""\x41\101\u00e4\U0001F600""#, "AAä😀"),
        (r#""\xc3\xa4""#, "ä"),
        ("`\\d\"\r\n`", "\\d\"\n"),
    ] {
        let parsed = Expression::parse(&format!("Name == {text}"), &LIMITS);
        let Ok(Expression::Match(Match { value: own, .. })) = parsed else { panic!("{text}: {parsed:?}") };
        assert_eq!(own, value, "{text}");
    }
}

#[test]
fn long_and_deep_expressions_are_refused_and_take_no_stack() {
    let small = Limits { octets_max: 30, matches_max: 2 };
    let fault = |text: &str| Filter::new(text, FIELDS, &small).unwrap_err();
    let long = format!("Name == \"{}\"", "x".repeat(30));
    assert_eq!(fault(&long), Fault::TooLong { octets: 40, max: 30 });
    assert_eq!(fault("On==1 or On==1 or On==1"), Fault::TooMany { max: 2 });
    assert!(Filter::new("On==1 or On==1", FIELDS, &small).is_ok());
    let deep = |count: usize| format!("{}On == true{}", "(".repeat(count), ")".repeat(count));
    assert_eq!(said(&deep(NESTING_MAX)), Ok(true));
    for text in [
        deep(NESTING_MAX + 1),
        deep(40_000),
        "(".repeat(99_000),
        "not ".repeat(20_000),
        "not (".repeat(15_000),
    ] {
        assert_eq!(Filter::new(&text, FIELDS, &LIMITS).unwrap_err(), Fault::TooDeep);
    }
    let wide = ["On == true"; 1000].join(" and ");
    assert_eq!(said(&wide), Ok(true));
}

fn a_match() -> impl Strategy<Value = Match> {
    const OPERATORS: [Operator; 8] = [
        Operator::Equal,
        Operator::NotEqual,
        Operator::In,
        Operator::NotIn,
        Operator::Matches,
        Operator::NotMatches,
        Operator::IsEmpty,
        Operator::IsNotEmpty,
    ];
    // A field called `not` behind a `not` is read as another `not`.
    let first = "[a-zA-Z][a-zA-Z0-9_]{0,8}".prop_filter("not", |name| name != "not");
    let further = prop::collection::vec(prop_oneof!["[a-zA-Z][a-zA-Z0-9_]{0,3}", any::<String>()], 0..3);
    (first, further, any::<String>(), prop::sample::select(&OPERATORS[..])).prop_map(
        |(first, further, value, operator)| {
            let bare = matches!(operator, Operator::IsEmpty | Operator::IsNotEmpty);
            let selector = std::iter::once(first).chain(further).collect();
            Match { selector, operator, value: if bare { String::new() } else { value } }
        },
    )
}

fn an_expression() -> impl Strategy<Value = Expression> {
    let leaf = a_match().prop_map(Expression::Match);
    leaf.prop_recursive(5, 40, 4, |inner| {
        let parts = prop::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            parts.clone().prop_map(Expression::Any),
            parts.prop_map(Expression::All),
            inner.prop_map(|inner| match inner {
                Expression::Not(inner) => *inner,
                other => Expression::Not(Box::new(other)),
            }),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_written_reads_back_the_same(expression in an_expression()) {
        let written = expression.to_string();
        prop_assert_eq!(Expression::parse(&written, &LIMITS), Ok(expression), "{}", written);
    }

    #[test]
    fn no_text_does_harm(
        text in "((not|and|or|in|is|empty|contains|matches|Name|Meta|Items|Port|==|!=|[ .()\\[\\]\"`\\\\x1-]|\\PC) ?){0,30}",
    ) {
        if let Ok(filter) = Filter::new(&text, FIELDS, &LIMITS) {
            let _ = filter.matches(&Thing);
        }
    }

    /// The negated operators are the negation of the plain ones, but where a key is missing or a list stands on the way.
    #[test]
    fn negations_are_opposites(value in "[a-z0-9.-]{0,4}") {
        for (plain, negated) in [
            (format!("Name == `{value}`"), format!("Name != `{value}`")),
            (format!("`{value}` in Tags"), format!("`{value}` not in Tags")),
            (format!("`{value}` in Meta.env"), format!("Meta.env not contains `{value}`")),
        ] {
            prop_assert_eq!(said(&plain), said(&negated).map(|said| !said));
            prop_assert_eq!(said(&format!("not {plain}")), said(&negated));
        }
    }
}
