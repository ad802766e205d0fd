//! What the journal takes and what is left for it, for the metrics. On the side thread.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::metrics::render::ProcessCells;

/// Listing a folder costs milliseconds at most, and scrapes come every 15 s or so.
const EVERY: Duration = Duration::from_secs(5);

pub(super) async fn watch(data_dir: PathBuf, cells: Arc<ProcessCells>) {
    loop {
        // A folder that cannot be listed keeps its last numbers; the journal itself says what is wrong.
        if let Ok((files, bytes)) = size(&data_dir.join("journal")) {
            cells.journal_segments.set(files);
            cells.journal_bytes.set(bytes);
        }
        if let Ok(free) = nix::sys::statvfs::statvfs(&data_dir) {
            cells.journal_free_bytes.set(free.blocks_available() * free.fragment_size());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Number of all segment files, and the bytes that the journals take. Files come and go meanwhile.
fn size(journals: &Path) -> io::Result<(u64, u64)> {
    let (mut segments, mut bytes) = (0, 0);
    for journal in std::fs::read_dir(journals)? {
        let Ok(files) = std::fs::read_dir(journal?.path()) else { continue };
        for file in files {
            let file = file?;
            segments += u64::from(file.path().extension().is_some_and(|e| e == "seg"));
            // Blocks of 512 bytes: thin files are much shorter than they say.
            bytes += file.metadata().map_or(0, |metadata| metadata.blocks() * 512);
        }
    }
    Ok((segments, bytes))
}
