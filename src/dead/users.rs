//! Users in lists: as a hash under a key of this data folder, never as they are.
//!
//! Phones are few enough that a plain hash of one is as good as the phone. The key stays in the folder
//! beside the letters, which hold the users anyway.

use std::io;
use std::path::Path;

use aws_lc_rs::hmac;

use super::disk::Disk;

const NAME: &str = "users.key";

#[derive(Debug)]
pub(super) struct UserKey {
    key: hmac::Key,
    /// It is in the folder.
    pub(super) kept: bool,
}

impl UserKey {
    /// The key in `dir`, made and kept there if `make` and there is none.
    pub(super) fn open(disk: &impl Disk, dir: &Path, make: bool) -> io::Result<Self> {
        let path = dir.join(NAME);
        let there = disk.exists(&path);
        if there && disk.size(&path)? != 32 {
            return Err(io::Error::other(format!(
                "{} is damaged, 32 bytes were expected; restore it, or remove it: then lists cannot be searched for \
                 the users of letters that are there already",
                path.display()
            )));
        }
        if there {
            return Ok(Self::new(&disk.read(&path, 0, 32)?, true));
        }
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        if make {
            let temporary = dir.join("users.key.tmp");
            disk.create(&temporary, &bytes)?;
            disk.rename(&temporary, &path)?;
            disk.sync_folder(dir)?;
        }
        Ok(Self::new(&bytes, make))
    }

    fn new(bytes: &[u8], kept: bool) -> Self {
        Self { key: hmac::Key::new(hmac::HMAC_SHA256, bytes), kept }
    }

    /// `user` as an entry of the journal has it: digits of a phone, or an id.
    pub(super) fn hash(&self, user: &str) -> u64 {
        let tag = hmac::sign(&self.key, user.as_bytes());
        tag.as_ref().iter().take(8).fold(0, |hash, byte| hash << 8 | u64::from(*byte))
    }
}
