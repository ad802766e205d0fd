//! `penstock archive keygen`: a new Ed25519 key, in two files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::{Failure, IO, USAGE};
use crate::config::SigningKey;

#[derive(Debug, clap::Args)]
#[command(after_long_help = MANUAL)]
pub struct Args {
    /// File for the private key; the public one goes beside it, with .pub behind the name
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

const MANUAL: &str = "\
The private key belongs on the gateway and nowhere else: whoever has it can
sign. Keep the public one where archives are verified, and keep it for as long
as the archives: links stay signed by the key of their time.

To change the key make another one, configure it, and restart. From then on
verify the archive with both public keys.

Files that exist are not overwritten.

Example:
  penstock archive keygen /etc/penstock/archive.pem

  [archive]
  signing_key = \"file:/etc/penstock/archive.pem\"";

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let mut public = args.file.clone().into_os_string();
    public.push(".pub");
    let public = PathBuf::from(public);
    let (key, pem) = SigningKey::generate().map_err(|told| Failure::new(IO, told))?;
    let mut private = make(&args.file, 0o600)?;
    let made = make(&public, 0o644).and_then(|mut file| {
        write(&mut private, &args.file, &pem)?;
        write(&mut file, &public, &key.public().to_pem())
    });
    if made.is_err() {
        // It was made just now, and there is nothing in it that anybody has used.
        fs::remove_file(&args.file).ok();
    }
    made?;
    let mut out = io::stdout();
    writeln!(out, "private key  {}   configure it: signing_key = \"file:{0}\"", args.file.display())?;
    writeln!(out, "public key   {}   verify with: --key {0}", public.display())?;
    writeln!(out, "links name it {}", key.public().id())?;
    Ok(0)
}

fn make(path: &Path, mode: u32) -> anyhow::Result<File> {
    let made = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            let told = format!("{} exists; name another file, so that no key is lost", path.display());
            Failure::new(USAGE, told).into()
        }
        _ => anyhow::Error::new(error).context(format!("make {}", path.display())),
    })
}

fn write(file: &mut File, path: &Path, pem: &str) -> anyhow::Result<()> {
    let written = file.write_all(pem.as_bytes()).and_then(|()| file.sync_all());
    written.with_context(|| format!("write {}", path.display()))
}
