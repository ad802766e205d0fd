//! Webhooks that no archive can have, since making their records ends the process: kept as they came.
//!
//! ```text
//! <data_dir>/unarchived/<journal>-<lsn>.webhook    the kept headers, one a line; an empty line; the body
//! ```
//!
//! For a person, and for a version that can handle them. Nobody else reads or removes them.

use std::io;
use std::path::{Path, PathBuf};

use super::disk::Disk;
use super::record::Webhook;

#[derive(Debug)]
pub(super) struct Unarchived<D> {
    disk: D,
    data_dir: PathBuf,
}

impl<D: Disk> Unarchived<D> {
    pub(super) fn new(disk: D, data_dir: &Path) -> Self {
        Self { disk, data_dir: data_dir.to_owned() }
    }

    /// Once this returns the webhook is there, durably. One that is there already is left as it is.
    pub(super) fn keep(&self, webhook: &Webhook<'_>) -> io::Result<()> {
        let folder = self.data_dir.join("unarchived");
        let path = folder.join(format!("{}-{}.webhook", webhook.journal, webhook.lsn));
        if self.disk.exists(&path)? {
            return self.disk.sync_dir(&folder);
        }
        self.disk.make_dir(&folder)?;
        self.disk.sync_dir(&self.data_dir)?;
        let unfinished = path.with_extension("tmp");
        let mut file = self.disk.create(&unfinished)?;
        for part in [webhook.meta.headers(), b"\n", webhook.body] {
            self.disk.append(&mut file, part)?;
        }
        self.disk.sync(&file)?;
        self.disk.rename(&unfinished, &path)?;
        self.disk.sync_dir(&folder)?;
        tracing::error!(
            file = %path.display(),
            "a webhook is in none of its archives: making its record ended the process again and again; it is kept \
             here as it came, for a version that can handle it"
        );
        Ok(())
    }
}
