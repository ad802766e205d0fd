//! Which letters a person means. Pure.

use super::record::Row;
use super::{Failure, LetterId, Reason, State};

/// All that is said must hold; nothing said: every letter.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// One of these; empty: any.
    pub ids: Vec<LetterId>,
    /// Name.
    pub region: Option<String>,
    /// `entry::name_id` of its name.
    pub source: Option<u32>,
    /// Died then or later, Unix milliseconds.
    pub since_ms: Option<u64>,
    /// Died before.
    pub until_ms: Option<u64>,
    pub reason: Option<Reason>,
    pub status: Option<u16>,
    /// Keyed hash.
    pub user: Option<u64>,
    pub state: Option<State>,
    /// Letters above this one: the next page of a list.
    pub after: Option<LetterId>,
}

impl Filter {
    /// Whether a letter is meant that is in `state` and failed last as `failure` says; its region has
    /// been looked at.
    pub fn takes(&self, row: &Row<'_>, state: State, failure: &Failure) -> bool {
        fn is<T: PartialEq>(wanted: Option<&T>, found: &T) -> bool {
            wanted.is_none_or(|wanted| wanted == found)
        }
        is(self.reason.as_ref(), &failure.reason)
            && is(self.status.as_ref(), &failure.status)
            && is(self.source.as_ref(), &row.source())
            && is(self.state.as_ref(), &state)
            && self.since_ms.is_none_or(|since| failure.at_ms >= since)
            && self.until_ms.is_none_or(|until| failure.at_ms < until)
            && self.after.is_none_or(|after| row.id() > after)
            && (self.ids.is_empty() || self.ids.contains(&row.id()))
            && self.user.is_none_or(|user| row.users().any(|other| other == user))
    }
}
