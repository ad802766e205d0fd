use super::*;
use crate::forward::retry::Rng;

/// The same promises, kept by looking through everything each time.
#[derive(Default)]
struct Model {
    /// In the order of pushes: id, conversations, state.
    parcels: Vec<(ParcelId, Vec<u64>, Is)>,
    failing: Vec<ParcelId>,
    /// Pushed as fresh and never parked.
    fresh: Vec<ParcelId>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Is {
    Idle,
    Running,
    Parked,
}

impl Model {
    fn ready(&self) -> Vec<ParcelId> {
        let heads_all = |at: usize| {
            let before = &self.parcels[..at];
            self.parcels[at].1.iter().all(|c| !before.iter().any(|(_, others, _)| others.contains(c)))
        };
        (0..self.parcels.len())
            .filter(|&at| self.parcels[at].2 == Is::Idle && heads_all(at))
            .map(|at| self.parcels[at].0)
            .collect()
    }

    /// Parcels behind one that fails, or behind one that is blocked; and of the others those that are fresh.
    fn blocked_and_fresh(&self) -> (usize, usize) {
        let mut holding: Vec<u64> = Vec::new();
        let (mut count, mut fresh) = (0, 0);
        for (id, conversations, _) in &self.parcels {
            let blocked = conversations.iter().any(|c| holding.contains(c));
            count += usize::from(blocked);
            fresh += usize::from(!blocked && self.fresh.contains(id));
            if blocked || self.failing.contains(id) {
                holding.extend(conversations);
            }
        }
        (count, fresh)
    }

    fn set(&mut self, id: ParcelId, is: Is) {
        self.parcels.iter_mut().find(|p| p.0 == id).unwrap().2 = is;
    }

    /// A random parcel in one of these states.
    fn pick(&self, states: &[Is], rng: &mut Rng) -> Option<ParcelId> {
        let fit: Vec<_> = self.parcels.iter().filter(|p| states.contains(&p.2)).collect();
        if fit.is_empty() { None } else { Some(fit[rng.below(fit.len() as u64) as usize].0) }
    }
}

/// Cuts a parcel into one part per conversation, if it has several.
fn split(lanes: &mut Lanes<u64>, model: &mut Model, id: ParcelId) {
    let item = *lanes.get(id).unwrap();
    let conversations: Vec<u64> = lanes.conversations(id).collect();
    if conversations.len() < 2 {
        return;
    }
    let parts = conversations.iter().map(|c| (vec![*c], item)).collect();
    let (whole, ids) = lanes.split(id, parts).unwrap();
    assert_eq!(whole, item);
    let at = model.parcels.iter().position(|p| p.0 == id).unwrap();
    let parts = ids.iter().zip(conversations).map(|(id, c)| (*id, vec![c], Is::Parked));
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|part| part.0);
    model.parcels.splice(at..=at, parts);
    if model.failing.contains(&id) {
        model.failing.extend(&ids);
    }
}

/// Random pushes, pops, parks, unparks and ends; after each step the lanes must agree with the model.
fn follow_the_model(seed: u64) {
    println!("seed {seed}");
    let mut rng = Rng::new(seed);
    let mut lanes = Lanes::default();
    let mut model = Model::default();
    let conversations = 1 + rng.below(12);
    let mut pushed = 0u64;
    for _ in 0..300 {
        match rng.below(11) {
            0..4 => {
                let wanted: Vec<u64> = (0..rng.below(5))
                    .map(|_| rng.below(conversations).wrapping_mul(0x9E37_79B9_7F4A_7C15))
                    .collect();
                let class = if rng.below(2) == 0 { Class::Fresh } else { Class::Backlog };
                let id = lanes.push(&wanted, class, pushed);
                if class == Class::Fresh {
                    model.fresh.push(id);
                }
                model.parcels.push((id, wanted, Is::Idle));
                pushed += 1;
            }
            4..7 => {
                let ready = model.ready();
                let popped = lanes.pop_ready();
                assert_eq!(popped.is_some(), !ready.is_empty(), "seed {seed}");
                if let Some(id) = popped {
                    let own = |other: &ParcelId| model.fresh.contains(other) == model.fresh.contains(&id);
                    let oldest = ready.iter().find(|other| own(other));
                    assert_eq!(Some(&id), oldest, "seed {seed}: the oldest ready parcel of its class");
                    model.set(id, Is::Running);
                }
            }
            7 => {
                if let Some(id) = model.pick(&[Is::Running], &mut rng) {
                    lanes.park(id);
                    model.set(id, Is::Parked);
                    model.fresh.retain(|other| *other != id);
                    if rng.below(2) == 0 {
                        lanes.block(id);
                        model.failing.push(id);
                    }
                }
            }
            9 => {
                if let Some(id) = model.pick(&[Is::Running, Is::Parked], &mut rng) {
                    split(&mut lanes, &mut model, id);
                }
            }
            8 => {
                if let Some(id) = model.pick(&[Is::Parked], &mut rng) {
                    lanes.unpark(id);
                    model.set(id, Is::Idle);
                }
            }
            _ => {
                if let Some(id) = model.pick(&[Is::Running, Is::Parked], &mut rng) {
                    assert_eq!(lanes.finish(id), id.sequence);
                    model.parcels.retain(|p| p.0 != id);
                    assert_eq!(lanes.get(id), None, "seed {seed}: settled is gone");
                }
            }
        }
        assert_eq!(lanes.len(), model.parcels.len(), "seed {seed}");
        assert_eq!(lanes.ready_len(), model.ready().len(), "seed {seed}");
        let lens = (lanes.blocked_len(), lanes.fresh_len());
        assert_eq!(lens, model.blocked_and_fresh(), "seed {seed}");
        let mut ids: Vec<_> = lanes.ids().collect();
        ids.sort();
        assert_eq!(ids, model.parcels.iter().map(|p| p.0).collect::<Vec<_>>(), "seed {seed}");
    }
    // No deadlock: what is ready or held can always be settled, until nothing is left.
    while let Some(id) = model.pick(&[Is::Running, Is::Parked], &mut rng) {
        lanes.finish(id);
        model.parcels.retain(|p| p.0 != id);
    }
    while let Some(id) = lanes.pop_ready() {
        assert!(model.ready().contains(&id), "seed {seed}");
        lanes.finish(id);
        model.parcels.retain(|p| p.0 != id);
    }
    assert!(model.parcels.is_empty(), "seed {seed}: {} parcels wait for ever", model.parcels.len());
    assert_eq!((lanes.blocked_len(), lanes.fresh_len()), (0, 0), "seed {seed}");
    assert!(lanes.is_empty() && lanes.tails.is_empty(), "seed {seed}: empty lanes are given back");
    assert_eq!(lanes.places.len(), lanes.free_places.len(), "seed {seed}: so are places");
    assert_eq!(lanes.parcels.len(), lanes.free_parcels.len(), "seed {seed}: and slots");
}

#[test]
fn random_lives_agree_with_the_model() {
    for seed in 0..150 {
        follow_the_model(seed);
    }
}

#[test]
fn conversations_do_not_wait_for_each_other() {
    let mut lanes = Lanes::default();
    let a1 = lanes.push(&[1], Class::Backlog, "a1");
    let a2 = lanes.push(&[1], Class::Backlog, "a2");
    let b1 = lanes.push(&[2], Class::Backlog, "b1");
    let none = lanes.push(&[], Class::Backlog, "none");
    assert_eq!(lanes.pop_ready(), Some(a1));
    lanes.park(a1);
    assert_eq!(lanes.pop_ready(), Some(b1), "a parked head holds up its own lane only");
    assert_eq!(lanes.pop_ready(), Some(none));
    assert_eq!(lanes.pop_ready(), None, "a2 waits for a1");
    lanes.unpark(a1);
    assert_eq!(lanes.pop_ready(), Some(a1));
    assert_eq!(lanes.finish(a1), "a1");
    assert_eq!(lanes.pop_ready(), Some(a2));
}

#[test]
fn parcel_of_two_conversations_waits_for_both_and_holds_both() {
    let mut lanes = Lanes::default();
    let a = lanes.push(&[1], Class::Backlog, ());
    let b = lanes.push(&[2], Class::Backlog, ());
    let both = lanes.push(&[1, 2, 1], Class::Backlog, ());
    let after = lanes.push(&[2], Class::Backlog, ());
    assert_eq!((lanes.pop_ready(), lanes.pop_ready(), lanes.pop_ready()), (Some(a), Some(b), None));
    lanes.finish(b);
    assert_eq!(lanes.ready_len(), 0, "still behind a");
    lanes.finish(a);
    assert_eq!(lanes.pop_ready(), Some(both));
    assert_eq!(lanes.pop_ready(), None);
    lanes.finish(both);
    assert_eq!(lanes.pop_ready(), Some(after));
}

#[test]
fn blocked_parcels_are_those_behind_a_failing_one_near_or_far() {
    let mut lanes = Lanes::default();
    let head = lanes.push(&[1], Class::Backlog, ());
    lanes.push(&[1, 2], Class::Backlog, ());
    lanes.push(&[2], Class::Backlog, ());
    let free = lanes.push(&[3], Class::Backlog, ());
    lanes.pop_ready();
    lanes.park(head);
    assert_eq!(lanes.blocked_len(), 0, "it waits for something else than its region");
    lanes.block(head);
    lanes.block(head);
    assert_eq!(lanes.blocked_len(), 2);
    let late = lanes.push(&[3, 2], Class::Backlog, ());
    assert!(lanes.is_blocked(late) && !lanes.is_blocked(free) && !lanes.is_blocked(head));
    lanes.finish(head);
    assert_eq!(lanes.blocked_len(), 0);
}

#[test]
fn parts_stand_in_the_lanes_of_their_conversations_and_nobody_passes() {
    let mut lanes = Lanes::default();
    let whole = lanes.push(&[1, 2], Class::Backlog, "whole");
    let behind = [lanes.push(&[1], Class::Backlog, "one"), lanes.push(&[2], Class::Backlog, "two")];
    lanes.pop_ready();
    for parts in [vec![(vec![1], "a")], vec![(vec![1], "a"), (vec![1, 2], "b")]] {
        assert!(lanes.split(whole, parts).is_err(), "a lane in no part, or in two");
    }
    let (item, parts) = lanes.split(whole, vec![(vec![1], "a"), (vec![2], "b")]).unwrap();
    assert_eq!((item, lanes.get(whole), lanes.len()), ("whole", None, 4));
    parts.iter().for_each(|part| lanes.unpark(*part));
    assert_eq!(
        (lanes.pop_ready(), lanes.pop_ready(), lanes.pop_ready()),
        (Some(parts[0]), Some(parts[1]), None)
    );
    lanes.finish(parts[1]);
    assert_eq!(lanes.pop_ready(), Some(behind[1]));
    assert_eq!(lanes.conversations(parts[0]).collect::<Vec<_>>(), [1]);
}

#[test]
fn retry_that_is_due_goes_before_younger_parcels() {
    let mut lanes = Lanes::default();
    let old = lanes.push(&[1], Class::Backlog, ());
    lanes.pop_ready();
    lanes.park(old);
    let young = lanes.push(&[2], Class::Backlog, ());
    lanes.unpark(old);
    assert_eq!((lanes.pop_ready(), lanes.pop_ready()), (Some(old), Some(young)));
}

#[test]
fn id_of_a_settled_parcel_finds_nothing_in_the_reused_slot() {
    let mut lanes = Lanes::default();
    let first = lanes.push(&[1], Class::Backlog, 1);
    lanes.pop_ready();
    lanes.finish(first);
    let second = lanes.push(&[1], Class::Backlog, 2);
    assert_eq!(second.index, first.index);
    assert_eq!(lanes.get(first), None);
    assert_eq!(lanes.get_mut(first), None);
    assert_eq!(lanes.get(second), Some(&2));
}

#[test]
#[should_panic(expected = "not in a state")]
fn waiting_parcel_cannot_be_settled() {
    let mut lanes = Lanes::default();
    lanes.push(&[1], Class::Backlog, ());
    let second = lanes.push(&[1], Class::Backlog, ());
    lanes.finish(second);
}

/// The numbers in the header of `lane.rs`.
#[test]
fn bookkeeping_of_a_waiting_parcel_stays_small() {
    assert_eq!(size_of::<Place>(), 20);
    assert_eq!(size_of::<Parcel<Box<u64>>>() - size_of::<Box<u64>>(), 24);
    assert_eq!(size_of::<(u64, u32)>(), 16, "an entry of the hash table, beside one control byte");
}
