//! The provider: new webhooks, and all that was not answered 200, again and again; taken in as `intake` does.

use super::*;

impl World {
    /// The provider sends it again later.
    pub(super) fn again(&mut self, webhook: usize) {
        let wait = Duration::from_millis(50 + self.random.below(6000));
        self.sends.push(Reverse((elapsed() + wait, webhook)));
    }

    pub(super) fn take_answers(&mut self) {
        let answered = std::mem::take(&mut *self.answered.borrow_mut());
        for webhook in answered {
            // An answer is lost now and then, and the provider repeats what was stored.
            if self.random.one_in(12) {
                self.again(webhook);
            }
        }
    }

    pub(super) fn provider(&mut self, life: &Life) {
        while let Some(Reverse((at, webhook))) = self.sends.peek().copied() {
            if at > elapsed() {
                break;
            }
            self.sends.pop();
            self.send(life, webhook);
        }
        while self.to_make > 0 && self.next_make <= elapsed() {
            self.to_make -= 1;
            let pause = match self.random.below(4) {
                _ if self.busy => self.random.below(250),
                0 | 1 => self.random.below(3),
                2 => self.random.below(60),
                _ => self.random.below(1500),
            };
            let pause = if self.calm { pause * 8 } else { pause };
            self.next_make = elapsed() + Duration::from_millis(pause);
            let webhook = self.make();
            self.send(life, webhook);
        }
    }

    /// A new webhook: new events, sometimes with old ones among them.
    pub(super) fn make(&mut self) -> usize {
        let count = if self.random.one_in(3) { 1 + self.random.below(5) } else { 1 };
        let mut events = Vec::new();
        let base = self.random.below(u64::from(self.conversations)) as u32;
        for _ in 0..count {
            let stray = self.random.one_in(3);
            let conversation =
                if stray { self.random.below(u64::from(self.conversations)) as u32 } else { base };
            events.push(self.truth.new_event(at_region(conversation, self.deadly)));
        }
        if self.truth.webhooks() > 0 && self.random.one_in(8) {
            let old = self.random.below(self.truth.webhooks() as u64) as usize;
            let mut more = self.truth.webhook(old, |webhook| webhook.events.clone());
            more.truncate(1 + self.random.below(4) as usize);
            // Old ones first: so they were made.
            more.append(&mut events);
            events = more;
        }
        let padding = if self.random.one_in(10) { self.random.below(9000) as usize } else { 0 };
        self.truth.new_webhook(events, padding)
    }

    pub(super) fn send(&mut self, life: &Life, number: usize) {
        let body = self.truth.webhook(number, |webhook| Rc::clone(&webhook.body));
        let at = self.random.below(life.journals.len() as u64) as usize;
        let journal = &life.journals[at];
        // As intake does, without the signature.
        let verdict = &mut self.verdict;
        verdict.clear();
        verdict.source = name_id("main");
        verdict.received_at_ns = exec::unix_ns();
        verdict.signature[..8].copy_from_slice(&(number as u64).to_le_bytes());
        let config = &life.plan.config;
        let mut owners = 0u64;
        let parsed = self.parser.parse(config.sources[0].kind, &body, &mut |event| {
            let phone = event.users.first().and_then(|user| user.phone).unwrap_or_default();
            let region = REGIONS.iter().position(|(_, prefix)| phone.starts_with(prefix)).unwrap_or(0);
            owners |= 1 << (region % life.plan.forward);
            let slot = verdict.slot(name_id(REGIONS[region].0));
            let row = EventRow { key: event.key, value: event.value, slot, kind: event.kind as u8 };
            verdict.push(row, event.users);
            verdict.conversations.extend(conversations(event.number, event.users).map(|c| (slot, c)));
        });
        assert!(!matches!(parsed, Parsed::Opaque(_)), "the simulation's own webhooks are understood");
        verdict.finish();
        let seq = life.seq.get();
        life.seq.set(seq + 1);
        let slots = verdict.regions.len() as u16;
        if !journal.accepting() {
            self.truth.note(format_args!("webhook {number} answered 503"));
            self.again(number);
            return;
        }
        let appended =
            journal.append(seq, slots, owners, verdict.encoded_len(), |out| verdict.write(out), &body);
        match appended {
            Ok(ticket) => {
                self.truth.sent(number);
                let events = self.truth.webhook(number, |webhook| webhook.events.clone());
                self.truth.note(format_args!("webhook {number} {events:?} to journal {at}, seq {seq}"));
                *self.open.borrow_mut().entry(number).or_default() += 1;
                let (truth, open) = (Rc::clone(&self.truth), Rc::clone(&self.open));
                let answered = Rc::clone(&self.answered);
                life.exec().spawn(async move {
                    if ticket.await.is_ok() {
                        truth.acked(number);
                        truth.note(format_args!("webhook {number} answered 200"));
                        let mut open = open.borrow_mut();
                        if let Some(count) = open.get_mut(&number) {
                            *count -= 1;
                            if *count == 0 {
                                open.remove(&number);
                            }
                        }
                        answered.borrow_mut().push(number);
                    }
                });
            }
            Err(_) => {
                self.truth.note(format_args!("webhook {number} answered 503"));
                self.again(number);
            }
        }
    }
}
