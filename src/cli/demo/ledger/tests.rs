//! What the ledger must notice, and what it must not mind.

use super::*;

/// A webhook number `at` with one event per `(id, conversation)`, all of `europe`, sent in its own second.
fn posted(at: u64, events: &[(&str, &str)]) -> Posted {
    let events: Vec<_> =
        events.iter().map(|(id, conversation)| (event(id, conversation, 1), "europe".to_owned())).collect();
    let digest = [u8::try_from(at).unwrap(); 32];
    let begun = Duration::from_secs(at);
    Posted { events, digest, genuine: true, status: 200, begun, answered: begun + Duration::from_millis(2) }
}

fn event(id: &str, conversation: &str, digest: u8) -> Event {
    Event { id: id.to_owned(), conversation: Some(conversation.to_owned()), digest: [digest; 32] }
}

fn arrived(webhook: &Posted) -> Arrived {
    Arrived {
        region: "europe".to_owned(),
        events: webhook.events.iter().map(|(event, _)| event.clone()).collect(),
        digest: webhook.digest,
        signed: true,
        announced: false,
    }
}

fn archived(webhook: &Posted) -> Archived {
    let Arrived { region, events, digest, .. } = arrived(webhook);
    Archived { region, digest, body: digest, events }
}

/// Three webhooks (a: one event of Ann, b: Ann and Ben, c: Ann), arriving as `change` leaves them;
/// each accepted one archived; then the line of Europe must differ from the balanced one as `expect` says.
fn check(change: impl FnOnce(&mut Vec<Posted>, &mut Vec<Arrived>), expect: impl FnOnce(&mut Balance)) {
    let mut webhooks = vec![
        posted(1, &[("a", "ann")]),
        posted(2, &[("b1", "ann"), ("b2", "ben")]),
        posted(3, &[("c", "ann")]),
    ];
    let mut parcels: Vec<_> = webhooks.iter().map(arrived).collect();
    let mut expected = Balance { accepted: 3, parcels: 3, signed: 3, whole: 3, ..Balance::default() };
    let europe =
        Line { region: "europe".to_owned(), webhooks: 3, expected: 4, delivered: 4, ..Line::default() };
    expected.lines = vec![europe, Line { region: "asia".to_owned(), ..Line::default() }];
    let undisturbed = expected.clone();

    change(&mut webhooks, &mut parcels);
    expect(&mut expected);
    let is_undisturbed = expected == undisturbed;
    let mut ledger = Ledger::new(&["europe", "asia"]);
    for webhook in webhooks {
        if webhook.is_accepted() {
            expected.kept.due += 1;
            ledger.archive(archived(&webhook));
        }
        ledger.post(webhook);
    }
    parcels.into_iter().for_each(|parcel| ledger.arrive(parcel));
    let balance = ledger.balance();
    assert_eq!(balance, expected);
    assert_eq!(ledger.outstanding(), balance.lines.iter().map(|line| line.lost).sum::<usize>());
    if is_undisturbed {
        assert!(balance.is_balanced());
    }
}

/// As [`check`], for what must never balance.
fn check_amiss(change: impl FnOnce(&mut Vec<Posted>, &mut Vec<Arrived>), expect: impl FnOnce(&mut Balance)) {
    check(change, |balance| {
        expect(balance);
        assert!(!balance.is_balanced(), "{balance:?}");
    });
}

#[test]
fn undisturbed_traffic_balances() {
    check(|_, _| {}, |_| {});
}

#[test]
fn webhook_that_is_not_archived_is_noticed() {
    let mut ledger = Ledger::new(&["europe"]);
    let webhook = posted(1, &[("a", "ann")]);
    ledger.arrive(arrived(&webhook));
    ledger.post(webhook.clone());
    assert!(!ledger.balance().is_balanced());
    ledger.archive(archived(&webhook));
    assert!(ledger.balance().is_balanced());
}

#[test]
fn lost_parcel_is_noticed() {
    check_amiss(
        |_, parcels| drop(parcels.remove(1)),
        |balance| {
            (balance.parcels, balance.signed, balance.whole) = (2, 2, 2);
            (balance.lines[0].delivered, balance.lines[0].lost) = (2, 2);
        },
    );
}

#[test]
fn lost_event_of_a_batch_is_noticed() {
    check_amiss(
        |_, parcels| drop(parcels[1].events.pop()),
        |balance| {
            balance.whole = 2;
            (balance.lines[0].delivered, balance.lines[0].lost) = (3, 1);
        },
    );
}

#[test]
fn doubled_parcel_is_noticed_and_an_announced_one_is_excused() {
    let doubled = |announced: bool| {
        move |_: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
            parcels.push(Arrived { announced, ..parcels[0].clone() });
        }
    };
    let count = |balance: &mut Balance| (balance.parcels, balance.signed, balance.whole) = (4, 4, 4);
    check_amiss(doubled(false), |balance| {
        count(balance);
        balance.lines[0].doubled = 1;
    });
    check(doubled(true), |balance| {
        count(balance);
        balance.lines[0].announced = 1;
        assert!(balance.is_balanced());
    });
}

#[test]
fn overtaking_in_a_conversation_is_noticed() {
    check_amiss(|_, parcels| parcels.swap(1, 2), |balance| balance.lines[0].disordered = 1);
    check_amiss(|_, parcels| parcels.rotate_right(1), |balance| balance.lines[0].disordered = 2);
    check_amiss(
        |webhooks, parcels| {
            webhooks[1].events[1].0.conversation = Some("ann".to_owned());
            parcels[1].events.swap(0, 1);
        },
        |balance| {
            balance.whole = 2;
            balance.lines[0].disordered = 1;
        },
    );
}

#[test]
fn what_was_under_way_at_once_has_no_order() {
    let late_answer = |webhooks: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
        webhooks[1].answered = Duration::from_secs(4);
        parcels.swap(1, 2);
    };
    check(late_answer, |_| {});
    let strangers = |webhooks: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
        webhooks[2].events[0].0.conversation = Some("cem".to_owned());
        parcels.rotate_right(1);
    };
    check(strangers, |_| {});
}

#[test]
fn altered_bytes_are_noticed_inside_and_around_the_events() {
    check_amiss(|_, parcels| parcels[2].digest = [9; 32], |balance| balance.lines[0].altered = 1);
    check_amiss(
        |_, parcels| {
            parcels.insert(2, parcels[1].clone());
            parcels[1].events.pop();
            parcels[2].events.remove(0);
            parcels[2].events[0].digest = [9; 32];
        },
        |balance| {
            (balance.parcels, balance.signed, balance.whole) = (4, 4, 2);
            balance.lines[0].altered = 1;
        },
    );
}

#[test]
fn wrong_signature_is_noticed() {
    check_amiss(|_, parcels| parcels[0].signed = false, |balance| balance.signed = 2);
}

#[test]
fn event_in_a_wrong_region_is_lost_and_a_stranger() {
    check_amiss(
        |_, parcels| parcels[0].region = "asia".to_owned(),
        |balance| {
            (balance.lines[0].delivered, balance.lines[0].lost) = (3, 1);
            balance.lines[1].strangers = 1;
        },
    );
    check_amiss(
        |_, parcels| parcels[0].events.push(event("never sent", "ann", 1)),
        |balance| {
            balance.whole = 2;
            balance.lines[0].strangers = 1;
        },
    );
}

#[test]
fn forgery_must_neither_be_accepted_nor_arrive() {
    let forged = |status: u16, arrives: bool| {
        move |webhooks: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
            let forged = Posted { genuine: false, status, ..posted(4, &[("f", "ann")]) };
            if arrives {
                parcels.push(arrived(&forged));
            }
            webhooks.push(forged);
        }
    };
    check(forged(401, false), |balance| {
        balance.forged = 1;
        assert!(balance.is_balanced());
    });
    check_amiss(forged(200, false), |balance| (balance.forged, balance.forged_accepted) = (1, 1));
    check_amiss(forged(401, true), |balance| {
        (balance.forged, balance.forged_delivered) = (1, 1);
        (balance.parcels, balance.signed, balance.whole) = (4, 4, 4);
    });
}

#[test]
fn repeat_of_a_webhook_is_expected_once() {
    let repeat = |status: u16| {
        move |webhooks: &mut Vec<Posted>, _: &mut Vec<Arrived>| {
            let again = Duration::from_secs(5);
            webhooks.push(Posted { status, begun: again, answered: again, ..webhooks[0].clone() });
        }
    };
    check(repeat(200), |balance| {
        (balance.accepted, balance.lines[0].webhooks, balance.repeated) = (4, 4, 1);
        assert!(balance.is_balanced());
    });
    check(repeat(503), |balance| assert!(balance.is_balanced()));
}

#[test]
fn webhook_without_a_200_may_arrive_or_not() {
    let refused = |arrives: bool| {
        move |webhooks: &mut Vec<Posted>, parcels: &mut Vec<Arrived>| {
            webhooks[2].status = 503;
            if !arrives {
                parcels.pop();
            }
        }
    };
    let fewer = |balance: &mut Balance| {
        balance.accepted = 2;
        let line = &mut balance.lines[0];
        (line.webhooks, line.expected, line.delivered) = (2, 3, 3);
        assert!(balance.is_balanced());
    };
    check(refused(true), fewer);
    check(refused(false), |balance| {
        fewer(balance);
        (balance.parcels, balance.signed, balance.whole) = (2, 2, 2);
    });
}
