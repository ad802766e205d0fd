//! `penstock archive`: prove an archive, search it, read it, make the key that signs it. Works on any copy, without a gateway.

use std::path::{Path, PathBuf};

use super::{Failure, IO, USAGE};
use crate::archive::bucket::{Bucket, Driver, Options};
use crate::archive::disk::Os;
use crate::archive::folder::Folder;
use crate::archive::shelf::Shelf;
use crate::config::{BucketPlace, StoreKind};

mod bar;
pub mod cat;
pub mod keygen;
pub mod search;
pub mod verify;

#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Say whether an archive is what its gateways put there
    Verify(verify::Args),
    /// Find records by message id, user, time or source
    Search(search::Args),
    /// Print the raw bodies of records
    Cat(cat::Args),
    /// Make the key that signs an archive's chain
    Keygen(keygen::Args),
}

pub fn run(command: &Command) -> anyhow::Result<u8> {
    match command {
        Command::Verify(args) => verify::run(args),
        Command::Search(args) => search::run(args),
        Command::Cat(args) => cat::run(args),
        Command::Keygen(args) => keygen::run(args),
    }
}

/// An archive to read from, as a configuration writes it or as a path.
fn shelf(text: &str) -> Result<Box<dyn Shelf>, Failure> {
    let is_bucket = StoreKind::ALL.iter().any(|kind| text.starts_with(&format!("{}://", kind.scheme())));
    if is_bucket {
        let told = |what: String| Failure::new(USAGE, format!("the archive is {text:?}. {what}"));
        let place = BucketPlace::parse(text).map_err(told)?;
        let driver = Driver::start().map_err(|error| Failure::new(IO, error.to_string()))?;
        let bucket = Bucket::open(&place, Options::to_read(), &driver);
        return Ok(Box::new(bucket.map_err(|fault| Failure::new(IO, fault.to_string()))?));
    }
    Ok(Box::new(Folder::new(Os, folder(text)?, String::new())))
}

/// The folder of an archive, as a configuration writes it or as a path.
fn folder(text: &str) -> Result<PathBuf, Failure> {
    let path = Path::new(text.strip_prefix("file://").unwrap_or(text));
    if text.contains("://") && !text.starts_with("file:///") {
        let told = format!("the archive is {text:?}, expected a folder: file:///srv/archive/eu or its path");
        return Err(Failure::new(USAGE, told));
    }
    if path.is_dir() {
        Ok(path.to_owned())
    } else {
        let told = format!("there is no folder {}; name the one that `region.archive` names", path.display());
        Err(Failure::new(USAGE, told))
    }
}
