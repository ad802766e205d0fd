//! `penstock check --online`: does anybody listen where the regions are said to be, and can their
//! archives be written?

use std::io::{self, Write, stderr, stdout};
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use crate::archive::bucket::{Bucket, Driver, Options};
use crate::archive::disk::Os;
use crate::archive::folder::Folder;
use crate::archive::store::{Reason, Store, StoreFault};
use crate::cli::FAILED;
use crate::config::{ArchivePlace, BucketPlace, Config, Region};

/// As long as a forwarding core waits for a connection.
const PATIENCE: Duration = Duration::from_secs(2);

/// Tries every region's endpoint, one after the other. Nothing is sent.
pub(super) fn try_regions(config: &Config) -> io::Result<u8> {
    let mut code = 0;
    for region in &config.regions {
        let (name, endpoint) = (&region.name, &region.endpoint.authority);
        match connect(region) {
            Ok((address, took)) => {
                writeln!(stdout(), "  online   region {name}: {address} accepts after {took:.1?}")?;
            }
            Err(error) => {
                code = FAILED;
                writeln!(
                    stderr(),
                    "region \"{name}\".endpoint\n  found     {endpoint}: {error}\n  \
                     expected  somebody who accepts connections there\n  \
                     to do     Start the region's receiver, or correct the address, the name server or the firewall."
                )?;
            }
        }
    }
    Ok(code)
}

/// Makes a file in every archive's folder and removes it again; asks every bucket what it can.
pub(super) fn try_archives(config: &Config) -> anyhow::Result<u8> {
    let mut code = 0;
    let archives = config
        .regions
        .iter()
        .filter_map(|region| Some((format!("region \"{}\".archive", region.name), region.archive.as_ref()?)));
    let heads = config.archive.heads.iter().map(|place| ("archive.heads".to_owned(), place));
    for (key, place) in archives.chain(heads) {
        let (found, expected, todo) = match place {
            ArchivePlace::Folder(folder) => (
                Folder::new(Os, folder.clone(), "check".to_owned())
                    .try_once()
                    .map_err(|fault| format!("{place}: {fault}")),
                "a folder that this user may write to",
                "Make the folder, mount its disk, or correct its owner or the path; run this as the gateway's user.",
            ),
            ArchivePlace::Bucket(place) => {
                let asked = ask(config, place);
                let todo = asked.as_ref().err().map_or("", |fault| fault.reason.todo());
                (asked.map_err(|fault| fault.to_string()), "a bucket that takes objects as configured", todo)
            }
        };
        match found {
            Ok(()) => writeln!(stdout(), "  online   {key}: {place} takes files")?,
            Err(error) => {
                code = FAILED;
                writeln!(stderr(), "{key}\n  found     {error}\n  expected  {expected}\n  to do     {todo}")?;
            }
        }
    }
    Ok(code)
}

fn ask(config: &Config, place: &BucketPlace) -> Result<(), StoreFault> {
    let driver = Driver::start()
        .map_err(|error| StoreFault::new(Reason::Other, format!("no thread for the network: {error}")))?;
    Bucket::open(place, Options::of(&config.archive), &driver)?.check()
}

fn connect(region: &Region) -> io::Result<(SocketAddr, Duration)> {
    let start = Instant::now();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in (region.endpoint.host.as_str(), region.endpoint.port).to_socket_addrs()? {
        match connect_to(address, region.source_address) {
            Ok(()) => return Ok((address, start.elapsed())),
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn connect_to(address: SocketAddr, source: Option<IpAddr>) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(ip) = source {
        socket.bind(&SocketAddr::new(ip, 0).into())?;
    }
    socket.connect_timeout(&address.into(), PATIENCE)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::path::Path;

    use super::*;
    use crate::config::{Keys, Secret};

    fn config(port: u16) -> Config {
        let text = format!(
            "[[source]]\nname = \"main\"\nsecrets = [\"s\"]\n\
             [[region]]\nname = \"eu\"\nendpoint = \"http://127.0.0.1:{port}/\"\nsource_address = \"127.0.0.2\"\n\
             [routing]\ndefault = \"eu\"\n"
        );
        Config::from_toml(&text, Path::new("/")).unwrap().0
    }

    #[test]
    fn an_archive_is_online_if_it_takes_files_and_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = config(1);
        assert_eq!(try_archives(&config).unwrap(), 0);
        config.regions[0].archive = Some(ArchivePlace::Folder(folder.path().to_owned()));
        assert_eq!(try_archives(&config).unwrap(), 0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        config.regions[0].archive = Some(ArchivePlace::Folder(folder.path().join("not mounted")));
        assert_eq!(try_archives(&config).unwrap(), FAILED);
        let mut bucket = BucketPlace::parse("s3://audit-eu/whatsapp").unwrap();
        bucket.access.endpoint = Some("http://127.0.0.1:1".to_owned());
        bucket.access.keys = Some(Keys { access: Secret::new("key"), secret: Secret::new("hush") });
        config.regions[0].archive = Some(ArchivePlace::Bucket(bucket.clone()));
        assert_eq!(try_archives(&config).unwrap(), FAILED);
        assert_eq!(ask(&config, &bucket).unwrap_err().reason, Reason::Unreachable);
    }

    #[test]
    fn a_region_is_online_if_somebody_accepts_there() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let config = config(listener.local_addr().unwrap().port());
        assert_eq!(try_regions(&config).unwrap(), 0);
        let (_, peer) = listener.accept().unwrap();
        assert_eq!(peer.ip().to_string(), "127.0.0.2", "from the address that the region's firewall knows");
        drop(listener);
        assert_eq!(try_regions(&config).unwrap(), FAILED);
    }
}
