//! Faults that a test asks for: the process ends, waits or is told of an error at a named step, or makes
//! a known mistake. In debug builds only; in a release build nothing of it is left.
//!
//! ```text
//! PENSTOCK_FAULT="name=action@n,..."   at the n-th passing of that point (n+ = from then on; left out: 1)
//!     abort            the process is killed, as by kill -9
//!     abort/300        killed from beside, so many microseconds later: the step goes on meanwhile
//!     sleep/5000       the thread (of `pause`: the task) waits so many milliseconds
//!     eio, enospc      the step fails with that error (only at points that can fail)
//!     short            half of the bytes are said to be written
//! PENSTOCK_POISON="step:text"          handling of a webhook with that text kills the process: judge, sift, cut,
//!                                      split, archive, archive-raw, or archive* for both; step:panic:text
//!                                      panics instead
//! PENSTOCK_MINUTE=1                    seconds that a minute takes by the clock of the keys of repeats
//! PENSTOCK_PLANTED="name,..."          known mistakes that a correct test suite finds
//! ```
//!
//! Every firing is one line on stderr, so that a test knows that it happened: `penstock-fault: name action`.
//!
//! # Deliberately absent
//!
//! Faults by chance: the test that arms a point chooses its moment, and can repeat it.

/// Steps of the program at which a fault may happen.
pub const POINTS: &[&str] = &[
    // A webhook, up to its answer.
    "accept",
    "head-read",
    "body-read",
    "verified",
    "queued",
    "frame-write",
    "frame-written",
    "frame-durable",
    "handed-over",
    "answer",
    "answer-half",
    // The end of the journal.
    "sealed",
    "segment-opened",
    "marks-queued",
    "marks-durable",
    "stop-seal",
    "clean-mark-left",
    // Segments made ahead.
    "spare-made",
    "spare-zeroed",
    "spare-synced",
    "spare-renamed",
    "spare-ready",
    // Freeing.
    "replace-written",
    "replace-synced",
    "list-renamed",
    "lists-synced",
    "floor-renamed",
    "floor-synced",
    "list-removed",
    "punched",
    "thinned",
    "segment-emptied",
    "segment-removed",
    "reuse-blanked",
    "reuse-renamed",
    "folder-emptied",
    "folder-removed",
    // A start.
    "recover-locked",
    "recover-cleared",
    "recover-read",
    "recovered",
    "clean-mark-taken",
    "spares-found",
    "keys-loaded",
    // A parcel.
    "sifted",
    "request-sent",
    "answer-read",
    "keys-file-made",
    "keys-write",
    "keys-written",
    "keys-synced",
    "marks-passed",
    // The archive.
    "object-created",
    "object-append",
    "object-written",
    "object-synced",
    "object-spooled",
    "object-copied",
    "object-copy-synced",
    "object-renamed",
    "object-closed",
    "object-put",
    "progress-written",
    "progress-synced",
    "progress-renamed",
    "progress-durable",
];

/// Steps of archives that have a chain.
pub const LINKED: &[&str] = &["link-noted", "link-written", "link-synced", "link-renamed", "link-durable"];

/// Steps of archives in buckets.
pub const SHIPPED: &[&str] =
    &["object-put", "upload-begun", "upload-noted", "part-uploaded", "upload-completed"];

/// Steps that only a region which refuses some of its parcels brings about.
pub const GIVEN_UP: &[&str] = &["letter-write", "index-write", "letter-durable", "letter-replayed"];

/// Known mistakes.
pub const PLANTED: &[&str] = &[
    // The journal's writer.
    "ack-before-commit",
    "write-error-ignored",
    "short-write-ignored",
    "frame-overwritten",
    "marks-lost",
    "waiter-forgotten",
    "newest-frame-unproven",
    // Freeing.
    "list-not-synced",
    "folder-not-synced",
    "unlink-before-floor",
    "list-lacks-a-parcel",
    "reuse-not-blanked",
    "marks-dropped-without-lists",
    "freed-before-archived",
    "hole-too-long",
    "thinned-while-it-drains",
    // Recovery.
    "good-frame-refused",
    "salt-not-compared",
    "chain-not-compared",
    "checksum-not-compared",
    "numbers-given-twice",
    "sequence-begins-anew",
    // Repeats.
    "mark-before-keys",
    "keys-not-synced",
    "keys-folder-not-synced",
    "sync-tried-again",
    "torn-keys-believed",
    "value-not-compared",
    "regions-share-keys",
    "key-cut-short",
    "keys-die-early",
    "keys-not-held",
    "loss-forgotten",
    "claimed-before-delivered",
    // Delivery.
    "mark-before-delivered",
    "overflow-not-told",
    "doubt-taken-back",
    "orphans-share-an-id",
    "cursor-forgotten",
    "entry-offered-twice",
    "journals-not-merged",
    "lane-not-kept",
    "overtaken-after-refusal",
    "fresh-overtakes-own-conversation",
    "fresh-offered-twice",
    "fresh-too-early",
    "overflow-not-counted",
    "doubt-not-told",
    "id-changes-with-attempts",
    "repeats-left-in",
    "redirect-taken",
    "refusal-taken",
    // Whether and when a region is asked.
    "breaker-never-opens",
    "breaker-opens-for-poison",
    "closed-by-one-probe",
    "pauses-do-not-grow",
    "wish-of-the-region-ignored",
    "any-wish-believed",
    "retries-unpaid",
    "retries-at-once",
    "rate-not-kept",
    "ramp-begins-full",
    "ramp-ignores-failures",
    "outage-waits-on",
    // What is given up.
    "outage-counts-as-tries",
    "brown-out-counts-as-tries",
    "dies-without-evidence",
    "quarantined-tried",
    "crash-not-counted",
    "panic-accuses-all",
    "nobody-acquitted",
    "gap-not-told",
    "gap-told-twice",
    // What is read while it is freed.
    "freed-under-a-reader",
    "foreign-text-is-damage",
    // Parcels that are cut into parts.
    "repeats-stand-in-line",
    "part-loses-an-event",
    "parts-numbered-anew",
    "part-named-as-the-whole",
    "settled-with-its-first-part",
    "dead-part-called-delivered",
    // Dead letters.
    "mark-before-letter",
    "letter-without-its-events",
    "letter-forgotten",
    "gap-forgotten",
    "told-gap-not-kept",
    "replay-leaves-its-gap",
    "dropped-letter-blocks",
    "no-start-on-a-full-disk",
    "drop-forgotten",
    "letter-goes-too-early",
    "replay-not-noted",
    "gaps-go-with-their-segment",
    "index-goes-first",
    "letters-believed-unsynced",
    "index-before-letters",
    "letter-names-not-synced",
    "index-not-synced",
    "letters-not-synced",
    // Secrets.
    "second-secret-forgotten",
    "signed-with-another-secret",
    "old-secret-believed",
    // The archive.
    "spool-not-synced",
    "object-not-synced",
    "object-name-not-synced",
    "object-written-twice",
    "object-not-linked",
    "link-not-synced",
    "link-name-not-synced",
    "progress-not-synced",
    "progress-before-object",
    "progress-before-archive",
    "archived-told-early",
    "archive-drops-some",
];

#[cfg(debug_assertions)]
mod armed;
#[cfg(debug_assertions)]
pub use armed::{cut, end, io, minute, pause, planted, point, poison};
#[cfg(not(debug_assertions))]
pub use nothing::{cut, end, io, minute, pause, planted, point, poison};

#[cfg(not(debug_assertions))]
mod nothing {
    #[inline(always)]
    pub fn point(_name: &'static str) {}

    #[inline(always)]
    pub fn io(_name: &'static str) -> std::io::Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub async fn pause(_name: &'static str) -> std::io::Result<()> {
        Ok(())
    }

    #[inline(always)]
    pub fn poison(_step: &'static str, _body: &[u8]) {}

    #[inline(always)]
    pub fn cut(_name: &'static str, _bytes: &mut Vec<u8>) {}

    #[inline(always)]
    pub fn end(_name: &'static str, written: std::io::Result<usize>) -> std::io::Result<usize> {
        written
    }

    #[inline(always)]
    pub const fn minute() -> std::time::Duration {
        std::time::Duration::from_mins(1)
    }

    #[inline(always)]
    pub const fn planted(_name: &'static str) -> bool {
        false
    }
}
