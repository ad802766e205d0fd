//! Reads what is in a bucket.

use std::io::{self, Read};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use object_store::{Error, GetOptions, GetRange, ObjectStore};

use super::plain::fault;
use super::{Bucket, Driver, PROBE};
use crate::archive::shelf::{Entry, EntryKind, Shelf, too_large};
use crate::archive::store::{Reason, StoreFault};

/// Files read at once: a store is far, and its answers take longer than what they bring.
const AT_ONCE: usize = 16;

impl Shelf for Bucket {
    fn names(&self, below: &str) -> io::Result<Vec<Entry>> {
        if let Some(s3) = self.s3.clone() {
            let key = self.key(below);
            let folder = if key.is_empty() { key } else { format!("{key}/") };
            let listed = self.driver.wait(self.long(), async move { s3.list(&folder).await });
            return Ok(sorted(listed.map_err(failed)?));
        }
        let (store, folder) = (self.store.clone(), self.path(below));
        let listed = self
            .driver
            .wait(self.long(), async move { store.list_with_delimiter(Some(&folder)).await.map_err(fault) })
            .map_err(failed)?;
        let folders = listed.common_prefixes.iter().filter_map(|path| {
            Some(Entry { name: path.filename()?.to_owned(), kind: EntryKind::Folder, bytes: 0 })
        });
        let files = listed.objects.iter().filter_map(|object| {
            let name = object.location.filename()?.to_owned();
            Some(Entry { name, kind: EntryKind::File, bytes: object.size })
        });
        Ok(sorted(folders.chain(files).collect()))
    }

    fn open(&self, name: &str) -> io::Result<Option<Box<dyn Read>>> {
        let (store, path) = (self.store.clone(), self.path(name));
        let opened = self.driver.wait(self.options.patience * 4, async move {
            found(store.get_opts(&path, GetOptions::default()).await)
        });
        let Some(result) = opened.map_err(failed)? else { return Ok(None) };
        let left = result.meta.size;
        let stream = Some(result.into_stream());
        let (driver, limit) = (self.driver.clone(), self.options.patience);
        Ok(Some(Box::new(Chunks { driver, limit, stream, chunk: Bytes::new(), left })))
    }

    fn read_at(&self, name: &str, offset: u64, len: u64) -> io::Result<Option<Vec<u8>>> {
        let (store, path) = (self.store.clone(), self.path(name));
        let read = self.driver.wait(self.long(), async move {
            // A store refuses a range behind the end.
            let Some(head) = found(store.get_opts(&path, head()).await)? else { return Ok(None) };
            let end = offset.saturating_add(len).min(head.meta.size);
            if offset >= end {
                return Ok(Some(Bytes::new()));
            }
            let range = Some(GetRange::Bounded(offset..end));
            let part = found(store.get_opts(&path, GetOptions { range, ..GetOptions::default() }).await)?;
            match part {
                Some(part) => part.bytes().await.map(Some).map_err(fault),
                None => Ok(None),
            }
        });
        Ok(read.map_err(failed)?.map(Vec::from))
    }

    fn at_once(&self) -> usize {
        AT_ONCE
    }

    fn read_each(&self, names: Vec<String>, most: u64) -> Vec<io::Result<Option<Vec<u8>>>> {
        let count = names.len();
        let paths: Vec<_> = names.iter().map(|name| self.path(name)).collect();
        let (store, limit) = (self.store.clone(), self.options.patience * 4);
        let read = self.driver.wait(self.long(), async move {
            let read = |path| {
                let store = store.clone();
                async move {
                    let reading = async {
                        let file = found(store.get_opts(&path, GetOptions::default()).await);
                        let Some(file) = file.map_err(failed)? else { return Ok(None) };
                        if file.meta.size > most {
                            return Err(too_large(most));
                        }
                        file.bytes().await.map(|bytes| Some(Vec::from(bytes))).map_err(fault).map_err(failed)
                    };
                    let silent = |_| {
                        Err(io::Error::new(io::ErrorKind::TimedOut, format!("not read within {limit:?}")))
                    };
                    tokio::time::timeout(limit, reading).await.unwrap_or_else(silent)
                }
            };
            Ok(stream::iter(paths).map(read).buffered(AT_ONCE).collect::<Vec<_>>().await)
        });
        match read {
            Ok(each) => each,
            Err(fault) => {
                let error = failed(fault);
                (0..count).map(|_| Err(io::Error::new(error.kind(), error.to_string()))).collect()
            }
        }
    }
}

fn sorted(mut entries: Vec<Entry>) -> Vec<Entry> {
    entries.retain(|entry| entry.name != PROBE);
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    entries
}

fn head() -> GetOptions {
    GetOptions { head: true, ..GetOptions::default() }
}

fn found<T>(result: object_store::Result<T>) -> Result<Option<T>, StoreFault> {
    match result {
        Ok(found) => Ok(Some(found)),
        // A bucket that is not there is not an archive without this file.
        Err(error @ Error::NotFound { .. }) => {
            let fault = fault(error);
            let bucket = ["NoSuchBucket", "ContainerNotFound"].iter().any(|code| fault.what.contains(code));
            if bucket { Err(fault) } else { Ok(None) }
        }
        Err(error) => Err(fault(error)),
    }
}

pub(super) fn failed(fault: StoreFault) -> io::Error {
    let kind = match fault.reason {
        Reason::Denied => io::ErrorKind::PermissionDenied,
        Reason::Timeout => io::ErrorKind::TimedOut,
        Reason::Missing => io::ErrorKind::NotFound,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, fault)
}

/// A file, as it comes over the network.
struct Chunks {
    driver: Driver,
    /// Longest wait for the next bytes.
    limit: Duration,
    /// `None`: it failed before.
    stream: Option<BoxStream<'static, object_store::Result<Bytes>>>,
    chunk: Bytes,
    /// Bytes that are still to come.
    left: u64,
}

impl Read for Chunks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.chunk.is_empty() && self.left > 0 {
            let mut stream =
                self.stream.take().ok_or_else(|| io::Error::other("reading it failed before"))?;
            let next = self.driver.wait(self.limit, async move {
                let next = stream.next().await.transpose().map_err(fault)?;
                Ok((next, stream))
            });
            let (next, stream) = next.map_err(failed)?;
            self.chunk = next.ok_or_else(|| {
                io::Error::new(
                    io::ErrorKind::UnexpectedEof,
                    format!("{} bytes are missing at its end", self.left),
                )
            })?;
            self.stream = Some(stream);
            self.left = self.left.saturating_sub(self.chunk.len() as u64);
        }
        let len = buffer.len().min(self.chunk.len());
        buffer[..len].copy_from_slice(&self.chunk.split_to(len));
        Ok(len)
    }
}
