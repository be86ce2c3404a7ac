//! The rule, who may have it, and that what is kept has bounds.

use proptest::prelude::*;

use super::*;

fn member(id: u8) -> Member {
    (NodeName::parse("n").unwrap(), InstanceId::parse(&format!("i{id}")).unwrap())
}

fn web() -> ServiceName {
    ServiceName::parse("web").unwrap()
}

fn reporter(n: u8) -> Reporter {
    Reporter { who: None, client: Some(IpAddr::from([10, 0, 0, n])) }
}

fn rule() -> Rule {
    Settings::default().rule("web")
}

/// Circuits, and a clock.
struct World {
    breakers: Breakers,
    begun: Instant,
    millis: u64,
}

impl World {
    fn new() -> Self {
        Self { breakers: Breakers::default(), begun: Instant::now(), millis: 0 }
    }

    fn now(&self) -> Instant {
        self.begun + Duration::from_millis(self.millis)
    }

    fn says(&mut self, who: u8, id: u8, good: u64, bad: u64) -> Verdict {
        let now = self.now();
        self.breakers.report(&rule(), (&web(), &member(id)), reporter(who), Counts { good, bad }, now)
    }

    fn open(&mut self, id: u8) {
        let now = self.now();
        self.breakers.open(&rule(), &web(), &member(id), now);
    }

    fn pass(&mut self) -> Vec<Member> {
        let now = self.now();
        let passed = self.breakers.pass(&rule(), &web(), now);
        passed.into_iter().map(|(member, _)| member).collect()
    }

    fn circuit(&self, id: u8) -> Option<Circuit> {
        self.breakers.circuit(&web(), &member(id))
    }
}

#[test]
fn ten_requests_with_six_failures_open_it_and_no_fewer() {
    let mut world = World::new();
    assert_eq!(world.says(1, 1, 0, 9), Verdict::Stay, "nine are too few");
    assert_eq!(world.says(1, 1, 0, 1), Verdict::Open);
    assert_eq!(world.says(1, 2, 5, 5), Verdict::Stay, "half is too little");
    assert_eq!(world.says(1, 2, 0, 2), Verdict::Stay, "seven of twelve");
    assert_eq!(world.says(1, 2, 0, 1), Verdict::Open, "eight of thirteen");
}

#[test]
fn the_window_rolls() {
    let mut world = World::new();
    assert_eq!(world.says(1, 1, 0, 6), Verdict::Stay);
    world.millis = 8_900;
    assert_eq!(world.says(1, 1, 3, 0), Verdict::Stay);
    assert_eq!(world.says(1, 1, 1, 0), Verdict::Open, "six of ten, the first almost a window old");
    world.millis = 10_001;
    assert_eq!(world.says(1, 1, 0, 5), Verdict::Stay, "five of nine: the first six are over");
    assert_eq!(world.says(1, 1, 0, 1), Verdict::Open);
    world.millis = 60_000;
    assert_eq!(world.says(1, 1, 0, 9), Verdict::Stay);
}

#[test]
fn it_is_out_for_its_time_then_tried_and_the_next_requests_decide() {
    let mut world = World::new();
    world.says(1, 1, 0, 10);
    world.open(1);
    assert_eq!(world.says(1, 1, 0, 100), Verdict::Stay, "what began before does not count");
    world.millis = 9_999;
    assert!(world.pass().is_empty() && world.circuit(1) == Some(Circuit::Open));
    world.millis = 10_000;
    assert_eq!((world.pass(), world.circuit(1)), (vec![member(1)], Some(Circuit::HalfOpen)));
    assert_eq!(world.says(1, 1, 1, 3), Verdict::Stay, "four do not decide");
    assert_eq!(world.says(1, 1, 1, 0), Verdict::Open, "three of five failed");
    world.open(1);
    world.millis = 20_000;
    world.pass();
    assert_eq!(world.says(1, 1, 2, 2), Verdict::Stay);
    assert_eq!(world.says(1, 1, 1, 0), Verdict::Close, "two of five failed");
    world.breakers.close(&web(), &member(1));
    assert_eq!(world.circuit(1), None);
    assert_eq!(world.says(1, 1, 0, 9), Verdict::Stay, "it begins anew");
}

#[test]
fn one_of_several_reporters_takes_nobody_out() {
    let mut world = World::new();
    assert_eq!(world.says(2, 9, 1, 0), Verdict::Stay);
    assert_eq!(world.says(1, 1, 0, 1_000_000), Verdict::Stay, "another one reports on the service");
    assert_eq!(world.says(2, 1, 5, 0), Verdict::Stay, "and does not agree");
    assert_eq!(world.says(3, 1, 0, 1), Verdict::Open, "a third one does");
    // Alone again, once the others have been silent for a window.
    let mut world = World::new();
    world.says(2, 9, 1, 0);
    world.millis = 9_999;
    assert_eq!(world.says(1, 1, 0, 50), Verdict::Stay);
    world.millis = 10_001;
    assert_eq!(world.says(1, 1, 0, 1), Verdict::Open);
    // No one alone reopens it either.
    world.open(1);
    world.millis = 20_001;
    world.pass();
    world.says(2, 9, 1, 0);
    assert_eq!(world.says(1, 1, 0, 50), Verdict::Stay);
    assert_eq!(world.says(2, 1, 0, 1), Verdict::Open);
}

#[test]
fn when_nobody_reports_any_more_a_half_open_circuit_closes() {
    let mut world = World::new();
    world.says(1, 1, 0, 10);
    world.open(1);
    world.millis = 10_000;
    world.pass();
    let (broken, next) = world.breakers.shown(&rule(), &web()).unwrap();
    assert_eq!(broken.counts(), (0, 1));
    assert_eq!(next, world.begun + Duration::from_secs(70));
    world.millis = 69_999;
    assert!(world.pass().is_empty());
    world.millis = 70_000;
    assert_eq!((world.pass(), world.circuit(1)), (vec![member(1)], None));
    assert_eq!(world.breakers.shown(&rule(), &web()), None);
    // A report on another instance is one on the service.
    world.says(1, 1, 0, 10);
    world.open(1);
    world.millis = 80_000;
    world.pass();
    world.millis = 100_000;
    world.says(1, 2, 1, 0);
    assert_eq!(world.breakers.shown(&rule(), &web()).unwrap().1, world.begun + Duration::from_secs(160));
}

#[test]
fn who_was_out_for_long_is_tried_all_the_same() {
    let (mut breakers, begun) = (Breakers::default(), Instant::now());
    let (mut settings, at) = (Settings::default(), |secs| begun + Duration::from_secs(secs));
    settings.out.all = Duration::from_secs(90);
    let rule = settings.rule("web");
    let says = |breakers: &mut Breakers, good, bad, secs| {
        breakers.report(&rule, (&web(), &member(1)), reporter(1), Counts { good, bad }, at(secs))
    };
    assert_eq!(says(&mut breakers, 0, 10, 0), Verdict::Open);
    breakers.open(&rule, &web(), &member(1), at(0));
    assert_eq!(breakers.pass(&rule, &web(), at(90)), [(member(1), Circuit::Open)]);
    let (broken, next) = breakers.shown(&rule, &web()).unwrap();
    assert_eq!((broken.counts(), next), ((0, 1), at(150)), "nobody could report on it while it was out");
    assert!(breakers.pass(&rule, &web(), at(149)).is_empty());
    assert_eq!(says(&mut breakers, 0, 5, 149), Verdict::Open, "its requests decide");
}

#[test]
fn a_service_has_its_own_rule_and_none_where_it_takes_no_requests() {
    let mut settings = Settings::default();
    settings.requests.services = vec![("web".into(), 0), ("db*".into(), 2)];
    let mut breakers = Breakers::default();
    let mut says = |service: &str, bad| {
        let (rule, service) = (settings.rule(service), ServiceName::parse(service).unwrap());
        let counts = Counts { good: 0, bad };
        breakers.report(&rule, (&service, &member(1)), reporter(1), counts, Instant::now())
    };
    assert_eq!(
        (says("web", 100), says("db-1", 1), says("db-1", 1)),
        (Verdict::Stay, Verdict::Stay, Verdict::Open)
    );
}

#[test]
fn what_is_old_makes_room() {
    let mut world = World::new();
    world.says(1, 1, 1, 0);
    world.millis = 5_000;
    world.says(2, 1, 1, 0);
    let new = |world: &World, who| world.breakers.is_new(&web(), &member(1), &reporter(who));
    assert_eq!((world.breakers.remembered(), new(&world, 1), new(&world, 3)), (2, false, true));
    world.millis = 14_999;
    world.says(2, 2, 1, 0);
    assert_eq!((world.breakers.remembered(), new(&world, 1)), (2, true), "swept after a window");
    world.millis = 60_000;
    let now = world.now();
    world.breakers.sweep(&Settings::default(), now);
    assert!(world.breakers.is_empty() && world.breakers.remembered() == 0);
}

proptest! {
    /// Whatever is reported, passes and goes: the count of what is remembered fits what is there, what is shown fits the circuits, and a sweep
    /// after a long silence leaves only circuits that are not closed.
    #[test]
    fn counts_fit(steps in prop::collection::vec((0..6u8, 0..4u8, 0..4u8, 0..12u64, 0..12u64, 0..4_000u64), 1..120)) {
        let mut world = World::new();
        for (what, who, id, good, bad, millis) in steps {
            world.millis += millis;
            match what {
                0..=2 => match world.says(who, id, good, bad + 1) {
                    Verdict::Open => {
                        prop_assert!(world.circuit(id) != Some(Circuit::Open));
                        world.open(id);
                    }
                    Verdict::Close => {
                        prop_assert_eq!(world.circuit(id), Some(Circuit::HalfOpen));
                        world.breakers.close(&web(), &member(id));
                    }
                    Verdict::Stay => {}
                },
                3 => drop(world.pass()),
                4 => world.breakers.gone(&web(), &member(id)),
                _ => {
                    let now = world.now();
                    world.breakers.release(&web(), &member(id), now);
                }
            }
            let all: usize = world.breakers.services.values().flat_map(|of| of.members.values()).map(|s| s.remembered()).sum();
            prop_assert_eq!(all, world.breakers.remembered);
            let shown = world.breakers.shown(&rule(), &web()).map(|(broken, _)| broken.counts());
            prop_assert_eq!(shown.unwrap_or_default(), world.breakers.counts());
            prop_assert_eq!(world.breakers.out(&web()).len(), world.breakers.counts().0);
        }
        world.millis += 600_000;
        let now = world.now();
        world.breakers.sweep(&Settings::default(), now);
        let heard: usize =
            world.breakers.services.values().flat_map(|of| of.members.values()).map(State::remembered).sum();
        prop_assert_eq!(world.breakers.remembered, heard);
        prop_assert!(world.breakers.services.values().all(|of| of.reporters.is_empty()));
    }
}
